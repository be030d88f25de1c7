//! The accounts that a stream has been told of: an account's id and limits travel once, then its calls name it by number.

use std::collections::HashMap;

use prost::Message as _;

use super::outgoing::Outgoing;
use crate::cache::key::AccountId;
use crate::rpc::proto::peer::v1::NumberedAccount;
use crate::server::accounts::Limits;
use crate::server::accounts::answer::{account_to_v1, limits_of};
use crate::server::codec::encode::put_nested;

/// Accounts that one stream knows at most; with more, a new stream begins.
pub(super) const MAX_TOLD: usize = 65_536;

/// `ForwardRequest.accounts`.
const ACCOUNTS: u32 = 3;

/// At the sender: the numbers that were given.
#[derive(Debug, Default)]
pub(super) struct Told {
    numbers: HashMap<AccountId, (u32, Option<Limits>)>,
    /// Most calls are of the account of the call before.
    last: Option<(AccountId, u32, Option<Limits>)>,
}

/// At the receiver: what the numbers stand for.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<Option<(AccountId, Limits)>>);

impl Told {
    pub(super) fn is_full(&self) -> bool {
        self.numbers.len() + 2 > MAX_TOLD
    }

    /// The number of an account, which is told in this message if it is new; as a payer, with its limits.
    pub(super) fn number(&mut self, id: &AccountId, limits: Option<&Limits>, message: &mut Outgoing) -> u32 {
        if let Some((last, number, told)) = &self.last
            && last == id
            && (limits.is_none() || told.as_ref() == limits)
        {
            return *number;
        }
        let next = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
        let (number, told) = self.numbers.entry(id.clone()).or_insert((next, None));
        if *number == next || (limits.is_some() && told.as_ref() != limits) {
            *told = limits.copied().or(*told);
            let account = account_to_v1(id, &told.unwrap_or_default());
            let account = NumberedAccount { number: *number, account: Some(account) };
            put_nested(ACCOUNTS, account.encoded_len(), message.buffer());
            // A growing buffer has room for every message.
            let _ = account.encode(message.buffer());
        }
        self.last = Some((id.clone(), *number, *told));
        *number
    }
}

impl Known {
    /// Takes what the other said; `None` if it makes no sense.
    pub(super) fn learn(&mut self, account: NumberedAccount) -> Option<()> {
        let at = usize::try_from(account.number).ok().filter(|number| (1..=MAX_TOLD).contains(number))? - 1;
        let account = account.account?;
        let known = (AccountId::new(&account.id).ok()?, limits_of(&account).ok()?);
        // Numbers are given in order, so this grows by one at a time; whoever skips some is bounded all the same.
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(known);
        Some(())
    }

    pub(super) fn get(&self, number: u32) -> Option<&(AccountId, Limits)> {
        self.0.get(usize::try_from(number).ok()?.checked_sub(1)?)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::peer::v1::ForwardRequest;
    use crate::server::codec::PREFIX_BYTES;

    fn said(message: &mut Outgoing) -> Vec<NumberedAccount> {
        if message.is_empty() {
            return Vec::new();
        }
        let wire: Vec<u8> = message.finish().into_iter().flatten().collect();
        ForwardRequest::decode(&wire[PREFIX_BYTES..]).unwrap().accounts
    }

    #[test]
    fn an_account_is_told_once_and_again_when_its_limits_change() {
        let (mut told, mut known, mut message) = (Told::default(), Known::default(), Outgoing::default());
        let account = |id: &str| AccountId::new(id).unwrap();
        let limits = |max_keys| Limits { max_keys: Some(max_keys), ..Limits::default() };
        for (id, limits, number, news) in [
            ("a", None, 1, true),
            ("a", None, 1, false),
            ("a", Some(limits(5)), 1, true),
            ("a", None, 1, false),
            ("b", Some(limits(5)), 2, true),
            ("a", Some(limits(5)), 1, false),
            ("a", Some(limits(6)), 1, true),
        ] {
            assert_eq!(told.number(&account(id), limits.as_ref(), &mut message), number);
            let said = said(&mut message);
            assert_eq!(said.len(), usize::from(news), "{id} {limits:?}");
            for account in said {
                known.learn(account).unwrap();
            }
            let (heard, heard_limits) = known.get(number).unwrap();
            assert_eq!(*heard, account(id));
            assert!(limits.is_none_or(|limits| limits == *heard_limits));
        }
        assert!(known.get(0).is_none() && known.get(3).is_none());
    }

    #[test]
    fn numbers_and_accounts_that_make_no_sense_are_refused() {
        let mut known = Known::default();
        let good = account_to_v1(&AccountId::new("a").unwrap(), &Limits::default());
        let many = u32::try_from(MAX_TOLD).unwrap();
        for number in [0, many + 1] {
            assert!(known.learn(NumberedAccount { number, account: Some(good.clone()) }).is_none());
        }
        let nameless = crate::rpc::proto::v1::Account::default();
        assert!(known.learn(NumberedAccount { number: 1, account: Some(nameless) }).is_none());
        assert!(known.learn(NumberedAccount { number: 1, account: None }).is_none());
        assert!(known.learn(NumberedAccount { number: many, account: Some(good) }).is_some());
    }
}
