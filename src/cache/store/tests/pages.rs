//! Pages that the store writes itself.

use bytes::BufMut as _;

use super::*;
use crate::cache::store::copies::{Lent, LentValue, Pieces};
use crate::ownership::copies::{Copies as _, Frozen};
use crate::ownership::member::{Endpoint, MemberId};
use crate::ownership::mistake::Mistakes;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;

/// A member all of whose entries are another's.
fn copies_for(other: &MemberId) -> StoreCopies {
    let (store, me) = (Arc::new(store_of(64 << 20, 4)), MemberId::new("me", 1));
    store.join(&me, Mistakes::default());
    let mut copies = store.copies();
    let view = |version, owner: &str| {
        let endpoint = |uid: &str| Endpoint {
            uid: MemberId::new(uid, 1).uid,
            address: format!("{uid}:1").into(),
            peer: format!("{uid}:2").into(),
            serves: uid == owner,
        };
        let view = View::of_slice("a", version, vec![endpoint("me"), endpoint("other")]);
        Arc::new(Snapshot::new(view.with_boot(&me).with_boot(other)))
    };
    copies.change(&view(1, "me"), &Arc::default(), &[]);
    let space = tenant(&store, "a");
    for number in 0..3000_usize {
        let bytes = [0, 9, 700, 3900, 5000, 40_000][number % 6] / if number % 7 == 0 { 2 } else { 1 };
        let expires = [None, Some(5), Some(10_000)][number % 3];
        let name = format!("{number}-{}", "k".repeat(number % 100));
        store.store(scope(&space), key(&name), &vec![7; bytes], expires, Condition::Always, at(0)).unwrap();
    }
    copies.change(&view(2, "other"), &Arc::default(), &[]);
    copies.set_now(at(10));
    copies
}

/// Any form will do.
fn write(lent: &Lent<'_>, now: Now, pieces: &mut Pieces) {
    let text = format!("{}/{}@{:?}", lent.space, String::from_utf8_lossy(lent.key), lent.version);
    pieces.buffer().put_slice(text.as_bytes());
    if let Some(value) = &lent.value {
        let text = format!("{:?} {:?} {:?} {}:", value.expires_ms, value.payer, now, value.len());
        pieces.buffer().put_slice(text.as_bytes());
        pieces.put_value(value);
    }
}

#[test]
fn a_written_page_has_what_the_page_has() {
    let other = MemberId::new("other", 1);
    let mut copies = copies_for(&other);
    assert_eq!(copies.write_page(&other, None, 9), None, "nobody said how");
    copies.write_pages(write);
    let (mut after, mut seen, mut shared) = (None, 0, 0);
    for max_bytes in [1, 50_000, 300_000].into_iter().cycle() {
        let (items, last) = copies.lend_page(&other, after.as_ref(), max_bytes);
        let page = copies.write_page(&other, after.as_ref(), max_bytes).unwrap();
        let mut expected = Pieces::default();
        for (place, copy) in &items {
            let value = copy.value.as_ref().map(LentValue::of_carried);
            let key = place.key.key.as_bytes();
            write(&Lent { space: &place.key.space, key, version: copy.version, value }, at(10), &mut expected);
        }
        assert!(page.pieces.concat() == expected.finish().concat(), "page after {after:?}");
        let bytes = |copy: &Frozen<Carried>| copy.value.as_ref().map_or(0, |carried| carried.value.len());
        let sum = items.iter().map(|(place, copy)| place.key.key.len() + bytes(copy)).sum::<usize>();
        assert_eq!((page.entries, page.bytes, page.last), (items.len(), sum, last));
        seen += items.len();
        shared += page.pieces.iter().filter(|piece| piece.len() == 40_000).count();
        if last {
            break;
        }
        after = items.last().map(|(place, _)| place.clone());
    }
    assert!(seen == 3000 && shared > 100, "{seen} entries, {shared} large values that were not copied");
}
