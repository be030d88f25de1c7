//! What a person sees: the greeting of `larder dev`, and the table of `larder dev ring`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accounts::{READY, Ready};
use super::control::Shown;
use super::fleet::Fleet;
use crate::ring::Ring;

/// How long a replica may take to say how many keys it holds, and how much of what it says is read.
const PAGE_LIMIT: Duration = Duration::from_secs(2);
const MAX_PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// What is said of keys when nobody answers.
const UNKNOWN: &str = "?";

/// What a person sees who started it.
pub fn welcome(fleet: &Fleet, base_port: u16, capacity: u64, accounts: &Path) -> String {
    let count = fleet.members().len();
    let replicas = if count == 1 { "one replica".to_owned() } else { format!("{count} replicas, one cache,") };
    let mut text = format!(
        "larder dev: {replicas} on loopback; its tokens are public, so keep no secrets in it\n\n  \
         replica  gRPC              health            admin\n"
    );
    for member in fleet.members() {
        let (grpc, health) = (member.ports.grpc().to_string(), member.ports.health().to_string());
        let _ =
            writeln!(text, "  {:<8} {grpc:<17} {health:<17} http://{}/metrics", member.number, member.ports.admin());
    }
    let each = if count == 1 { "" } else { " each" };
    let _ = write!(
        text,
        "\n  entries may take {}{each}; see --capacity\n  accounts {}   edit it, it is read again\n\n  tokens\n",
        ByteSize(capacity),
        accounts.display()
    );
    for Ready { token, id, what_for, .. } in &READY {
        let _ = writeln!(text, "    {token:<32} {id:<6} {what_for}");
    }
    let command = command();
    let base = if base_port == super::DEFAULT_BASE_PORT { String::new() } else { format!(" --base-port {base_port}") };
    let target = fleet.members().first().map(|member| member.ports.grpc().to_string()).unwrap_or_default();
    let _ = write!(
        text,
        "\npaste into another shell:\n\n\
         \x20 export LARDER_TARGET={target} LARDER_TOKEN={}\n\
         \x20 {command} store greeting 'hello, larder'\n\
         \x20 {command} get greeting\n\
         \x20 {command} stats\n\n\
         and to see keys move:\n\n\
         \x20 {command} dev scale 5{base}\n\
         \x20 {command} dev ring{base}\n\n\
         Ctrl-C ends it; what it holds is gone then.",
        READY[0].token
    );
    text
}

/// The replicas, their state, their shares of the ring and what they hold, as a table.
pub async fn ring(replicas: &[Shown]) -> String {
    let ring = Ring::new(replicas.iter().filter(|replica| replica.on_ring).map(|replica| &replica.grpc));
    let mut text =
        "replica  address            state         share    keys       memory       process  starts".to_owned();
    for replica in replicas {
        let share = share(&ring, &replica.grpc).filter(|_| replica.on_ring);
        let share = share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let page = timeout(PAGE_LIMIT, metrics(&replica.admin)).await.ok().flatten().unwrap_or_default();
        let keys = value(&page, "larder_store_entries").map_or_else(|| UNKNOWN.to_owned(), |keys| keys.to_string());
        let memory = value(&page, "larder_store_memory_bytes");
        let memory = memory.map_or_else(|| UNKNOWN.to_owned(), |bytes| ByteSize(bytes).to_string());
        let pid = replica.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let Shown { number, grpc, state, starts, .. } = replica;
        let _ =
            write!(text, "\n{number:<8} {grpc:<18} {state:<13} {share:<8} {keys:<10} {memory:<12} {pid:<8} {starts}");
    }
    text
}

/// The part of all hashes that a member owns.
fn share(ring: &Ring, address: &str) -> Option<f64> {
    let member = ring.members().iter().position(|its| &**its == address)?;
    let hashes: f64 = ring.stretches_of(member).iter().map(|its| (its.last - its.first) as f64 + 1.0).sum();
    Some(hashes / (u64::MAX as f64))
}

/// The value of a metric without labels.
fn value(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

async fn metrics(admin: &str) -> Option<String> {
    let mut stream = TcpStream::connect(admin).await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: larder\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut page = String::new();
    stream.take(MAX_PAGE_BYTES).read_to_string(&mut page).await.ok()?;
    Some(page)
}

/// The command as a shell finds it.
fn command() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "larder".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole_ring() {
        let ring = Ring::new(["127.0.0.1:7070", "127.0.0.1:7080", "127.0.0.1:7090"]);
        let all: f64 = ring.members().iter().filter_map(|address| share(&ring, address)).sum();
        assert!((all - 1.0).abs() < 1e-9, "{all}");
        assert_eq!(share(&ring, "127.0.0.1:1"), None);
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "larder_store_entries_total 1\nlarder_store_entries{a=\"b\"} 2\nlarder_store_entries 3\n";
        assert_eq!(value(page, "larder_store_entries"), Some(3));
        assert_eq!(value(page, "larder_store"), None);
    }
}
