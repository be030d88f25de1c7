//! The recordings of `tests/fixtures/endpointslices`, and what is true of them, found without the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::slices::{PortNames, Selection};
use crate::cluster::Family;

pub const NAMES: [&str; 5] =
    ["dual_stack_3", "named_port_change_rolling_3", "ordered_3_5_2", "parallel_3_5_2", "rolling_update_3"];

/// One recording: what a list would have said, and what came then.
pub struct Recording {
    pub name: &'static str,
    pub list: Vec<Value>,
    pub events: Vec<Event>,
    /// When all pods were deleted, if they were.
    pub deleted_at: Option<Duration>,
}

#[derive(Clone)]
pub struct Event {
    pub at: Duration,
    /// "ADDED", "MODIFIED" or "DELETED".
    pub kind: String,
    pub object: Value,
}

/// The newest of each slice that was heard of: name -> (version, object; none when it was deleted).
#[derive(Clone, Default)]
pub struct Truth(BTreeMap<String, (u64, Option<Value>)>);

impl Recording {
    /// Both Services' slices.
    pub fn read(name: &'static str) -> Self {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/endpointslices/{name}.jsonl.gz"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        let mut recording = Self { name, list: Vec::new(), events: Vec::new(), deleted_at: None };
        let mut named = BTreeSet::new();
        for line in text.lines() {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let at = Duration::from_secs_f64(line["t"].as_f64().unwrap());
            if let Some(action) = line["action"].as_str() {
                if action.starts_with("delete") {
                    recording.deleted_at = Some(at);
                }
                continue;
            }
            let (kind, object) = (line["type"].as_str().unwrap().to_owned(), line["object"].take());
            let is_first = named.insert(slice_name(&object).to_owned());
            if is_first && kind != "ADDED" {
                recording.list.push(object);
            } else {
                recording.events.push(Event { at, kind, object });
            }
        }
        recording
    }

    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(Self::read)
    }

    /// The version that a list of the beginning has.
    pub fn list_version(&self) -> u64 {
        self.list.iter().map(version).max().unwrap()
    }

    /// What is true after the list.
    pub fn beginning(&self) -> Truth {
        let mut truth = Truth::default();
        for object in &self.list {
            truth.hear(&Event { at: Duration::ZERO, kind: "ADDED".into(), object: object.clone() });
        }
        truth
    }
}

impl Event {
    pub fn slice(&self) -> EndpointSlice {
        slice(&self.object)
    }
}

impl Truth {
    pub fn hear(&mut self, event: &Event) {
        let found = version(&event.object);
        let known = self.0.entry(slice_name(&event.object).to_owned()).or_insert((0, None));
        if found >= known.0 {
            *known = (found, (event.kind != "DELETED").then(|| event.object.clone()));
        }
    }

    /// What a list says now.
    pub fn objects(&self) -> Vec<Value> {
        self.0.values().filter_map(|(_, object)| object.clone()).collect()
    }

    /// The greatest version.
    pub fn version(&self) -> u64 {
        self.0.values().map(|(version, _)| *version).max().unwrap_or_default()
    }

    /// The addresses that are to be on the ring: of the pods of `peers` that serve and do not terminate.
    pub fn ring(&self, family: Family) -> Vec<String> {
        self.endpoints(family).into_iter().filter(|(_, serves, _)| *serves).map(|(address, ..)| address).collect()
    }

    /// The pods of `peers`.
    pub fn uids(&self, family: Family) -> BTreeSet<String> {
        self.endpoints(family).into_iter().map(|(_, _, uid)| uid).collect()
    }

    /// Address, whether it is to be on the ring, uid; sorted.
    fn endpoints(&self, family: Family) -> Vec<(String, bool, String)> {
        let wanted = if family == Family::Ipv4 { "IPv4" } else { "IPv6" };
        let mut found = Vec::new();
        for object in self.0.values().filter_map(|(_, object)| object.as_ref()) {
            if service_of(object) != "peers" || object["addressType"] != wanted {
                continue;
            }
            for endpoint in object["endpoints"].as_array().into_iter().flatten() {
                let (ip, port) = (endpoint["addresses"][0].as_str().unwrap(), &object["ports"][0]["port"]);
                let address = if family == Family::Ipv4 { format!("{ip}:{port}") } else { format!("[{ip}]:{port}") };
                let is = |condition: &str| endpoint["conditions"][condition] == true;
                let uid = endpoint["targetRef"]["uid"].as_str().unwrap().to_owned();
                found.push((address, is("serving") && !is("terminating"), uid));
            }
        }
        found.sort_unstable();
        found
    }
}

/// How the recordings are read: they know one port.
pub fn selection(family: Family) -> Selection {
    let ports = PortNames { data: "grpc".into(), peer: "grpc".into() };
    Selection { service: "peers".into(), family, ports }
}

pub fn slice(object: &Value) -> EndpointSlice {
    serde_json::from_value(object.clone()).unwrap()
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn slice_name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn service_of(object: &Value) -> &str {
    object["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap()
}
