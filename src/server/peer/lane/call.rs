//! How a forward is written: by hand, straight into the outgoing message, because this is every forwarded call's way. The
//! same bytes as prost would write of a `ForwardedCall`.

use super::State;
use crate::rpc::proto::peer::v1::Operation;
use crate::rpc::trace::Trace;
use crate::server::codec::encode::{bytes_len, nested_len, number_len, put_bytes, put_nested, put_number};
use crate::server::peer::Forward;

/// `ForwardRequest.calls`.
const CALLS: u32 = 4;
/// The fields of `ForwardedCall`.
const ID: u32 = 1;
const OPERATION: u32 = 2;
const MESSAGE: u32 = 3;
const SPACE: u32 = 4;
const PAYER: u32 = 5;
const REMAINING_US: u32 = 6;
const DRY_RUN: u32 = 7;
const TRACE: u32 = 8;
/// The fields of `Trace`.
const TRACEPARENT: u32 = 1;
const TRACESTATE: u32 = 2;

impl State {
    /// Writes a forward into the last batch.
    pub(super) fn write(&mut self, id: u32, operation: Operation, forward: &Forward, remaining_us: u64) {
        // `reserve` has made room in it.
        let Some(batch) = self.batches.back_mut() else { return };
        let before = batch.message.len();
        let payer = forward.payer.as_ref();
        // The payer first: if it is the same account, its limits are told with it.
        let payer = payer.map_or(0, |(id, limits)| self.told.number(id, Some(limits), &mut batch.message));
        let space = self.told.number(&forward.space, None, &mut batch.message);
        let parent = forward.trace.context().map(Trace::traceparent);
        let parent = parent.as_ref().map_or(&[][..], |parent| parent);
        let state = forward.trace.context().map_or("", Trace::tracestate).as_bytes();
        let trace = bytes_len(TRACEPARENT, parent.len()) + bytes_len(TRACESTATE, state.len());
        // The numbers are the protocol's, all above 0.
        let operation = operation as u64;
        let numbers = [
            (ID, u64::from(id)),
            (OPERATION, operation),
            (SPACE, space.into()),
            (PAYER, payer.into()),
            (REMAINING_US, remaining_us),
            (DRY_RUN, forward.dry_run.into()),
        ];
        let length = numbers.iter().map(|(tag, number)| number_len(*tag, *number)).sum::<usize>()
            + bytes_len(TRACE, trace)
            + nested_len(MESSAGE, forward.message.len());
        let buffer = batch.message.buffer();
        put_nested(CALLS, length, buffer);
        for (tag, number) in numbers {
            put_number(tag, number, buffer);
        }
        if trace > 0 {
            put_nested(TRACE, trace, buffer);
            put_bytes(TRACEPARENT, parent, buffer);
            put_bytes(TRACESTATE, state, buffer);
        }
        batch.message.put_shared(MESSAGE, &forward.message);
        batch.calls += 1;
        self.queued_bytes += batch.message.len() - before;
    }
}
