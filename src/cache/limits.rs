//! Every bound of the contract, each with its unit and its reason. What an operator may change is in `server::config`, with
//! these as defaults or ceilings.

/// Bytes of a key. Memcached takes 250, S3 1,024, etcd 1.5 MiB in all; 4 KiB holds any path.
pub const MAX_KEY_BYTES: usize = 4096;

/// Bytes of one gRPC message that a stock client accepts unless told otherwise.
pub const STOCK_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of key and value together: what is left for the rest of the answer in a stock client's message.
pub const MAX_ENTRY_BYTES: usize = STOCK_MESSAGE_BYTES - 64 * 1024;

/// Milliseconds an entry may live: 400 days, as cookies do. Longer than any cache is up.
pub const MAX_TTL_MS: u64 = 400 * 24 * 60 * 60 * 1000;

/// Items of one batch.
pub const MAX_BATCH_ITEMS: usize = 10_000;

/// Calls in one message of a pipeline, and so the calls that are read and not answered: a message is read when every call of
/// the one before is answered.
pub const MAX_PIPELINE_CALLS: usize = 1024;

/// Bytes of the request id of an increment: a UUID, a ULID, or a trace id with a suffix.
pub const MAX_REQUEST_ID_BYTES: usize = 64;

/// Request ids that a counter remembers.
pub const REMEMBERED_REQUEST_IDS: usize = 16;

/// Milliseconds for which it does.
pub const REMEMBER_REQUEST_ID_MS: u64 = 60_000;

/// Bytes of an account id: a DNS label.
pub const MAX_ACCOUNT_ID_BYTES: usize = 63;

/// Bytes of a token.
pub const MAX_TOKEN_BYTES: usize = 512;
