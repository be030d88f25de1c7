//! The native Redis client of the comparison (`benches/compare`): the `redis` crate, its calls in flight shared out over
//! multiplexed connections, which is how it pipelines by itself.

#[path = "../../../client/loops.rs"]
mod loops;

use std::process::ExitCode;
use std::sync::Arc;

use loops::{Caller, Plan, Verb};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

/// The allocator of the Rust clients that it is compared with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Native {
    connection: MultiplexedConnection,
    shared: Arc<Shared>,
}

struct Shared {
    plan: Plan,
    keys: Vec<String>,
    value: Vec<u8>,
}

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("redis: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let plan = Plan::of(std::env::args().skip(1))?;
    let shared = Arc::new(Shared { keys: plan.all_keys(), value: vec![b'x'; plan.bytes], plan: plan.clone() });
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let client = redis::Client::open(format!("redis://{}", plan.address)).map_err(|error| error.to_string())?;
        let mut callers = Vec::new();
        for _ in 0..plan.connections {
            let connection = client.get_multiplexed_async_connection().await.map_err(|error| error.to_string())?;
            let caller = || Native { connection: connection.clone(), shared: Arc::clone(&shared) };
            callers.extend((0..plan.window).map(|_| caller()));
        }
        if plan.verb == Verb::Fill {
            let caller = callers.first_mut().ok_or("no connection")?;
            for index in 0..plan.keys {
                caller.call(index).await?;
            }
            return Ok("{}".to_owned());
        }
        plan.drive(callers).await
    })
}

impl Caller for Native {
    async fn call(&mut self, index: usize) -> Result<usize, String> {
        let key = self.shared.keys[index].as_str();
        if self.shared.plan.reads(index) {
            let value: Vec<u8> = self.connection.get(key).await.map_err(|error| error.to_string())?;
            if value.len() != self.shared.value.len() {
                return Err(format!("a value of {} bytes", value.len()));
            }
        } else {
            let stored: Result<(), _> = self.connection.set(key, self.shared.value.as_slice()).await;
            stored.map_err(|error| error.to_string())?;
        }
        Ok(1)
    }
}
