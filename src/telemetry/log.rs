//! The program's own log, on standard error.

use env_logger::Builder;

/// Starts logging with env_logger's filter syntax. Pingora's own lines are kept to errors unless the filter names it:
/// it logs what the access log already tells.
///
/// # Errors
/// A logger is installed already.
pub fn start_log(filter: &str) -> Result<(), log::SetLoggerError> {
    Builder::new()
        .filter_module("pingora", log::LevelFilter::Error)
        .parse_filters(filter)
        .format_target(false)
        .format_timestamp_micros()
        .try_init()
}
