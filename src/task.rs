//! Tasks that are waited for.

use tokio::task::JoinError;

/// What a task gave; `None` if it was cancelled. If it panicked, so does the caller: that is our fault, nobody
/// else's, and must be seen.
pub(crate) fn joined<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_task_is_one_of_whoever_waits_for_it() {
        assert_eq!(joined(tokio::spawn(async { 1 }).await), Some(1));
        let cancelled = tokio::spawn(std::future::pending::<()>());
        cancelled.abort();
        assert_eq!(joined(cancelled.await), None);
        let waits = tokio::spawn(async { joined(tokio::spawn(async { panic!("ours") }).await) });
        assert!(waits.await.unwrap_err().is_panic());
    }
}
