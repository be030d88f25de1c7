//! Methods as forwards name them. The numbers are the protocol's and never change; the order of [`Method`] may.

use crate::rpc::proto::peer::v1::Operation;
use crate::server::method::Method;

/// The methods that can be forwarded: those whose request is about one key.
const TABLE: [(Method, Operation); 10] = [
    (Method::Get, Operation::Get),
    (Method::Store, Operation::Store),
    (Method::Delete, Operation::Delete),
    (Method::Touch, Operation::Touch),
    (Method::Increment, Operation::Increment),
    (Method::TutorialGet, Operation::TutorialGet),
    (Method::TutorialStore, Operation::TutorialStore),
    (Method::PeerDumpPage, Operation::DumpPage),
    (Method::PeerClearPage, Operation::ClearPage),
    (Method::PeerUsage, Operation::Usage),
];

/// The number of a method; `None` if it cannot be forwarded.
pub(super) fn of(method: Method) -> Option<Operation> {
    TABLE.iter().find(|(known, _)| *known == method).map(|(_, operation)| *operation)
}

/// The method of a number; `None` if it is one of a newer release.
pub(super) fn method(operation: i32) -> Option<Method> {
    TABLE.iter().find(|(_, known)| *known as i32 == operation).map(|(method, _)| *method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_protocol_is_a_method_and_back() {
        for number in 1.. {
            let Ok(operation) = Operation::try_from(number) else { break };
            assert_eq!(method(number).and_then(of), Some(operation));
        }
        assert_eq!(method(0), None);
        assert_eq!(of(Method::Dump), None);
    }
}
