use serde_json::{Value, json};

use super::super::recording::slice;
use super::*;
use crate::ownership::snapshot::Snapshot;

mod recorded;

fn selection(family: Family) -> Selection {
    Selection { service: "larder".into(), family, ports: PortNames::default() }
}

/// A slice of the Service `larder`.
fn object(name: &str, version: &str, family: &str, endpoints: &[Value]) -> Value {
    json!({
        "metadata": {"name": name, "resourceVersion": version, "labels": {SERVICE_LABEL: "larder"}},
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "peer", "port": 7071}, {"name": "grpc", "port": 7070}],
    })
}

fn endpoint(address: &str, uid: &str, conditions: &Value) -> Value {
    json!({"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "uid": uid}})
}

fn ready(address: &str, uid: &str) -> Value {
    endpoint(address, uid, &json!({"ready": true}))
}

/// What a list of these slices says, in IPv4.
fn listed(objects: &[Value]) -> Reading {
    let slices: Vec<_> = objects.iter().map(slice).collect();
    selection(Family::Ipv4).list("100", &slices).unwrap()
}

fn ring(view: &View) -> Vec<String> {
    Snapshot::new(view.clone()).ring().members().iter().map(|member| member.to_string()).collect()
}

fn oddities(reading: &Reading) -> String {
    reading.oddities.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn only_slices_of_the_service_count() {
    let mut other = object("b", "2", "IPv4", &[ready("10.0.0.2", "b")]);
    other["metadata"]["labels"][SERVICE_LABEL] = "other".into();
    let mut unlabelled = object("c", "3", "IPv4", &[ready("10.0.0.3", "c")]);
    unlabelled["metadata"]["labels"] = Value::Null;
    let of_larder = object("a", "1", "IPv4", &[ready("10.0.0.1", "a")]);
    assert_eq!(ring(&listed(&[of_larder, other.clone(), unlabelled]).view), ["10.0.0.1:7070"]);
    assert_eq!(selection(Family::Ipv4).applied(&slice(&other)), Ok(None));
    assert_eq!(selection(Family::Ipv4).deleted(&slice(&other)), Ok(None));
}

#[test]
fn conditions_that_are_unset_mean_ready_and_serving_as_ready_and_not_terminating() {
    for (conditions, serves) in [
        (Value::Null, true),
        (json!({}), true),
        (json!({"ready": null, "serving": null, "terminating": null}), true),
        (json!({"ready": false}), false),
        (json!({"ready": true, "serving": false}), false),
        (json!({"ready": false, "serving": true}), true),
        (json!({"ready": true, "serving": true, "terminating": true}), false),
        (json!({"terminating": false}), true),
    ] {
        let reading = listed(&[object("a", "1", "IPv4", &[endpoint("10.0.0.1", "a", &conditions)])]);
        let endpoints = reading.view.endpoints();
        assert_eq!(endpoints.len(), 1, "it is in the view in any condition");
        assert_eq!(!ring(&reading.view).is_empty(), serves, "{conditions}");
    }
}

#[test]
fn a_pod_in_two_slices_is_one_member_as_the_newest_slice_has_it() {
    let old = object("a", "9", "IPv4", &[ready("10.0.0.1", "a")]);
    let new = object("b", "10", "IPv4", &[endpoint("10.0.0.1", "a", &json!({"serving": false}))]);
    let reading = listed(&[new, old]);
    assert_eq!((reading.view.endpoints().len(), ring(&reading.view).len()), (1, 0), "10 is newer than 9");
}

#[test]
fn the_ports_are_the_slices_own_and_found_by_name() {
    let mut moved = object("b", "2", "IPv4", &[ready("10.0.0.2", "b")]);
    moved["ports"] = json!([{"name": "grpc", "port": 8080}, {"name": "x", "port": 1}, {"name": "peer", "port": 8081}]);
    let reading = listed(&[object("a", "1", "IPv4", &[ready("10.0.0.1", "a")]), moved]);
    let peers: Vec<_> = reading.view.endpoints().values().map(|endpoint| endpoint.peer.to_string()).collect();
    assert_eq!(ring(&reading.view), ["10.0.0.1:7070", "10.0.0.2:8080"]);
    assert_eq!(peers, ["10.0.0.1:7071", "10.0.0.2:8081"]);
}

#[test]
fn a_slice_without_a_port_of_that_name_has_no_members_and_says_so() {
    for ports in [json!([{"name": "grpc", "port": 7070}]), json!([{"name": "peer"}]), json!([]), Value::Null] {
        let mut portless = object("a", "1", "IPv4", &[ready("10.0.0.1", "a")]);
        portless["ports"] = ports;
        let reading = listed(&[portless.clone()]);
        assert!(reading.view.endpoints().is_empty());
        assert!(oddities(&reading).contains("has no port named"), "{}", oddities(&reading));
        // As the controller writes it when there is nobody.
        portless["endpoints"] = json!([]);
        assert_eq!(listed(&[portless]).oddities, []);
    }
}

#[test]
fn the_first_address_is_the_one_that_counts() {
    let mut two = ready("10.0.0.9", "a");
    two["addresses"] = json!(["10.0.0.9", "10.0.0.1"]);
    assert_eq!(ring(&listed(&[object("a", "1", "IPv4", &[two])]).view), ["10.0.0.9:7070"]);
}

#[test]
fn what_has_no_pod_or_no_address_of_the_family_is_left_out_and_said() {
    let mut no_target = ready("10.0.0.2", "b");
    no_target["targetRef"] = Value::Null;
    let mut node = ready("10.0.0.3", "c");
    node["targetRef"]["kind"] = "Node".into();
    let mut no_address = ready("10.0.0.4", "d");
    no_address["addresses"] = json!([]);
    let endpoints = [ready("10.0.0.1", "a"), no_target, node, ready("10.0.0.5", ""), no_address, ready("fd00::1", "e")];
    let reading = listed(&[object("a", "1", "IPv4", &endpoints)]);
    assert_eq!(ring(&reading.view), ["10.0.0.1:7070"]);
    let said = oddities(&reading);
    assert_eq!(said.lines().count(), 5, "{said}");
    for part in ["10.0.0.2 has no pod", "10.0.0.3 has no pod", "10.0.0.5 has no pod", "pod d", "\"fd00::1\" is no ipv4"]
    {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_dual_stack_pod_is_one_member_with_an_address_of_the_clusters_family() {
    let slices = [
        slice(&object("a", "1", "IPv4", &[ready("10.0.0.1", "a")])),
        slice(&object("b", "2", "IPv6", &[ready("FD00:0::1", "a")])),
    ];
    for (family, address) in [(Family::Ipv4, "10.0.0.1:7070"), (Family::Ipv6, "[fd00::1]:7070")] {
        let mut backwards = slices.clone();
        backwards.reverse();
        for slices in [&slices, &backwards] {
            let reading = selection(family).list("3", slices).unwrap();
            assert_eq!(reading.view.endpoints().len(), 1);
            assert_eq!(ring(&reading.view), [address]);
        }
    }
    assert_eq!(selection(Family::Ipv4).applied(&slices[1]), Ok(None));
}

#[test]
fn a_deleted_slice_has_no_members_though_its_last_content_comes_with_it() {
    let before = listed(&[object("a", "1", "IPv4", &[ready("10.0.0.1", "a")])]).view;
    let deleted = slice(&object("a", "101", "IPv4", &[ready("10.0.0.1", "a")]));
    let deletion = selection(Family::Ipv4).deleted(&deleted).unwrap().unwrap();
    assert!(before.merge(&deletion.view).endpoints().is_empty());
}

#[test]
fn a_slice_that_a_newer_list_lacks_is_gone() {
    let before = listed(&[object("a", "1", "IPv4", &[ready("10.0.0.1", "a")])]).view;
    let after = selection(Family::Ipv4).list("101", &[]).unwrap().view;
    assert_eq!(after.source_version(), (101, 0));
    assert!(before.merge(&after).endpoints().is_empty());
}

#[test]
fn a_version_that_is_no_integer_is_an_error() {
    let selection = selection(Family::Ipv4);
    for version in ["", "0", "01", "-1", "+1", "1.5", "a1", "18446744073709551616"] {
        let slice = slice(&object("a", version, "IPv4", &[]));
        let wrong = Err(SliceError::Version { slice: "a".into(), found: version.into() });
        assert_eq!(selection.applied(&slice), wrong);
        assert_eq!(selection.deleted(&slice), wrong);
        assert_eq!(selection.list("1", std::slice::from_ref(&slice)).map(Some), wrong);
        assert_eq!(selection.list(version, &[]), Err(SliceError::ListVersion { found: version.into() }));
    }
    let greatest = slice(&object("a", "18446744073709551615", "IPv4", &[]));
    assert!(selection.applied(&greatest).is_ok());
    let nameless = slice(&object("", "1", "IPv4", &[]));
    assert_eq!(selection.applied(&nameless), Err(SliceError::NoName));
}
