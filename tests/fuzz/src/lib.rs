//! The proof of the parser in `dhcp_guard_common`: that it reads what the standards say, whatever the bytes.
//!
//! * [`mod@reference`]: a second parser, plain and slow.
//! * [`check`]: what must be true of any bytes. The fuzz targets and the tests call it.
//! * [`watched`]: a frame that notices when it is read in a way that the kernel would not accept.
//! * [`mutate`]: frames made worse.
//! * [`peers`]: parsers that are not ours, and where they differ by design.
//! * [`shapes`]: frames of all kinds, from builders that are not ours; the seeds of the corpus.
//! * [`leash`]: a fuzz target ends when whoever started it ends.

pub mod check;
pub mod leash;
pub mod mutate;
pub mod peers;
pub mod reference;
pub mod shapes;
pub mod watched;
