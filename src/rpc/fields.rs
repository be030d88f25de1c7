//! The field numbers of messages that are written or read by hand, a module per message. They are the contract's: none ever
//! gets another meaning.

/// `PipelineRequest`.
pub mod pipeline_request {
    pub const CALLS: u32 = 1;
}

/// `PipelineCall`.
pub mod pipeline_call {
    pub const ID: u32 = 1;
    pub const CONTEXT: u32 = 2;
    pub const GET: u32 = 3;
    pub const STORE: u32 = 4;
    pub const DELETE: u32 = 5;
    pub const TOUCH: u32 = 6;
    pub const INCREMENT: u32 = 7;
}

/// `CallContext`.
pub mod call_context {
    pub const TIMEOUT_MS: u32 = 1;
    pub const DRY_RUN: u32 = 2;
    pub const TRACEPARENT: u32 = 3;
    pub const TRACESTATE: u32 = 4;
}

/// `PipelineResponse`.
pub mod pipeline_response {
    pub const RESULTS: u32 = 1;
    pub const DRAIN: u32 = 2;
    pub const TOPOLOGY: u32 = 3;
}

/// `PipelineResult`.
pub mod pipeline_result {
    pub const ID: u32 = 1;
    pub const GET: u32 = 2;
    pub const STORE: u32 = 3;
    pub const DELETE: u32 = 4;
    pub const TOUCH: u32 = 5;
    pub const INCREMENT: u32 = 6;
    pub const ERROR: u32 = 7;
}

/// `Error`.
pub mod error {
    pub const USER_ERROR_CODE: u32 = 4;
}
