//! What EndpointSlices say about members: a pure function of the slice's content and settings that are the whole cluster's,
//! so that every replica makes the same of the same version.
//!
//! The view keeps each slice with its version and puts them together, each uid once, as the newest slice has it
//! (`crate::ownership::view`): a Service has several slices, by family, by number of a named port, and by a hundred endpoints.
//!
//! Left out, and said once: endpoints without a pod behind them, which have no identity that ends with them (an address
//! comes back under another process); slices without both ports, whose pods are of another make; what is no address.
//! Should that take away members that live, the news waits for a second look as any such news does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::Family;
use crate::ownership::member::{Endpoint, Uid};
use crate::ownership::view::View;

/// The label by which a slice belongs to a Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Which slices are read, and how. The same at all replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The name of the headless Service.
    pub service: String,
    /// Slices of the other family are ignored: a dual-stack pod is one member.
    pub family: Family,
    pub ports: PortNames,
}

/// The names of the ports in the Service. Their numbers belong to the slice: a rollout may change them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortNames {
    /// Its number and the pod's address are the place on the ring.
    pub data: String,
    /// Where replicas reach each other.
    pub peer: String,
}

/// What a list or an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// To be merged into what is known.
    pub view: View,
    /// What was left out: for the log.
    pub oddities: Vec<Oddity>,
}

/// Something in a slice that makes no member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Oddity {
    #[error("slice {slice}: {address} has no pod in its targetRef and is left out; members are pods")]
    NoPod { slice: String, address: String },
    #[error(
        "slice {slice} has no port named {port:?}: its {endpoints} endpoints are left out; name the port in Service and pod"
    )]
    NoPort { slice: String, port: String, endpoints: usize },
    #[error("slice {slice}: {address:?} is no {family} address; pod {uid} is left out")]
    NoAddress { slice: String, address: String, family: Family, uid: String },
}

/// Why a list or an event cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    #[error("slice {slice:?} has the resourceVersion {found:?}; it must be an integer from 1 to have an order")]
    Version { slice: String, found: String },
    #[error("the list has the resourceVersion {found:?}; it must be an integer from 1 to have an order")]
    ListVersion { found: String },
    #[error("a slice has no name")]
    NoName,
}

impl Default for PortNames {
    fn default() -> Self {
        Self { data: "grpc".into(), peer: "peer".into() }
    }
}

impl Selection {
    /// What a complete list says.
    ///
    /// # Errors
    /// When a resourceVersion has no order.
    pub fn list(&self, version: &str, slices: &[EndpointSlice]) -> Result<Reading, SliceError> {
        let list_version = integer(version).ok_or_else(|| SliceError::ListVersion { found: version.to_owned() })?;
        let mut oddities = Vec::new();
        let mut read = Vec::new();
        for slice in slices.iter().filter(|slice| self.wants(slice)) {
            let endpoints = self.endpoints(slice, &mut oddities);
            read.push((Arc::from(name(&slice.metadata)?), version_of(&slice.metadata)?, endpoints));
        }
        Ok(Reading { view: View::of_list(list_version, read), oddities })
    }

    /// What a slice says that was added or modified; nothing when it is not of this selection.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn applied(&self, slice: &EndpointSlice) -> Result<Option<Reading>, SliceError> {
        if !self.wants(slice) {
            return Ok(None);
        }
        let mut oddities = Vec::new();
        let endpoints = self.endpoints(slice, &mut oddities);
        let view = View::of_slice(name(&slice.metadata)?, version_of(&slice.metadata)?, endpoints);
        Ok(Some(Reading { view, oddities }))
    }

    /// What a slice says that was deleted: that it is no more. The content that comes with it is what it was last.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn deleted(&self, slice: &EndpointSlice) -> Result<Option<Reading>, SliceError> {
        if !self.wants(slice) {
            return Ok(None);
        }
        let view = View::of_deleted_slice(name(&slice.metadata)?, version_of(&slice.metadata)?);
        Ok(Some(Reading { view, oddities: Vec::new() }))
    }

    fn wants(&self, slice: &EndpointSlice) -> bool {
        let labels = slice.metadata.labels.as_ref();
        let is_service = labels.and_then(|labels| labels.get(SERVICE_LABEL)).is_some_and(|name| *name == self.service);
        let family = match self.family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        is_service && slice.address_type == family
    }

    fn endpoints(&self, slice: &EndpointSlice, oddities: &mut Vec<Oddity>) -> Vec<Endpoint> {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let port = |wanted: &str| {
            let found = slice.ports.iter().flatten().find(|port| port.name.as_deref() == Some(wanted))?;
            found.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
        };
        let mut numbers = [0; 2];
        for (number, wanted) in numbers.iter_mut().zip([&self.ports.data, &self.ports.peer]) {
            match port(wanted) {
                Some(found) => *number = found,
                // A slice without endpoints has no ports either.
                None if slice.endpoints.is_empty() => return Vec::new(),
                None => {
                    let (slice, endpoints) = (name.to_owned(), slice.endpoints.len());
                    oddities.push(Oddity::NoPort { slice, port: wanted.clone(), endpoints });
                    return Vec::new();
                }
            }
        }
        let read = slice.endpoints.iter().map(|endpoint| self.endpoint(name, numbers, endpoint));
        read.filter_map(|read| read.map_err(|oddity| oddities.push(oddity)).ok()).collect()
    }

    fn endpoint(&self, slice: &str, ports: [u16; 2], endpoint: &discovery::Endpoint) -> Result<Endpoint, Oddity> {
        // All of them reach the same pod; the first is the one that consumers use.
        let address = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
        let (slice, shown) = (|| slice.to_owned(), || address.to_owned());
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let uid = pod.and_then(|pod| pod.uid.as_deref()).filter(|uid| !uid.is_empty());
        let uid = uid.ok_or_else(|| Oddity::NoPod { slice: slice(), address: shown() })?;
        let ip = address.parse().ok().filter(|ip: &IpAddr| Family::of(*ip) == self.family);
        let family = self.family;
        let ip =
            ip.ok_or_else(|| Oddity::NoAddress { slice: slice(), address: shown(), family, uid: uid.to_owned() })?;
        let [address, peer] = ports.map(|port| SocketAddr::new(ip, port).to_string().into());
        Ok(Endpoint { uid: Uid::new(uid), address, peer, serves: serves(endpoint.conditions.as_ref()) })
    }
}

/// `ready` is no help where the Service publishes addresses that are not ready, so `serving` counts if it is there.
fn serves(conditions: Option<&discovery::EndpointConditions>) -> bool {
    let Some(conditions) = conditions else { return true };
    let ready = conditions.ready.unwrap_or(true);
    conditions.serving.unwrap_or(ready) && !conditions.terminating.unwrap_or(false)
}

fn name(metadata: &ObjectMeta) -> Result<&str, SliceError> {
    metadata.name.as_deref().filter(|name| !name.is_empty()).ok_or(SliceError::NoName)
}

fn version_of(metadata: &ObjectMeta) -> Result<u64, SliceError> {
    let found = metadata.resource_version.as_deref().unwrap_or_default();
    let slice = || metadata.name.clone().unwrap_or_default();
    integer(found).ok_or_else(|| SliceError::Version { slice: slice(), found: found.to_owned() })
}

/// As resourceVersions are since Kubernetes 1.35: decimal, without sign or leading zero, and to be compared as numbers.
fn integer(version: &str) -> Option<u64> {
    let is_decimal = version.bytes().all(|byte| byte.is_ascii_digit()) && !version.starts_with('0');
    version.parse().ok().filter(|_| is_decimal)
}

#[cfg(test)]
mod tests;
