//! The first thing a daemon does: open its store, however long that takes to be there.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use crate::{
    api::waiting,
    clock::Clock,
    config::Config,
    id::Ids,
    metrics::Metrics,
    retry::StoreRetry,
    store::{Db, StoreError, outage::Cause},
};

/// Opens the store. One that is not there yet is waited for, behind a door that says so; then the door comes with
/// it. `None` if the daemon was stopped meanwhile.
pub(super) async fn open(
    config: &Config,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<Option<(Db, Option<TcpListener>)>, DaemonError> {
    let (url, lease) = (config.database_url.expose(), config.fleet.lease);
    let mut retry = StoreRetry::new("start");
    let (mut pause, cause) = match Db::open_for_daemon(url, lease, metrics).await {
        Ok(db) => return Ok(Some((db, None))),
        Err(error) => match passing(&error) {
            Some(cause) => (retry.pause(&error), Arc::new(Mutex::new(cause))),
            None => return Err(error.into()),
        },
    };
    let address = config.server.listen;
    let unheard = |error| DaemonError::Listen { address, error };
    let listener = listen(address).await?.into_std().map_err(unheard)?;
    let door = listener.try_clone().and_then(TcpListener::from_std).map_err(unheard)?;
    let opened = CancellationToken::new();
    let answering = waiting::serve(
        door,
        Arc::new(config.clone()),
        Ids::new(Clock::System),
        Arc::clone(&cause),
        opened.clone(),
    );
    let opening = async {
        // However this ends, nothing is waited for any more.
        let _opened = opened.drop_guard();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(pause) => {}
            }
            match Db::open_for_daemon(url, lease, metrics).await {
                Ok(db) => return Ok(Some(db)),
                Err(error) => match passing(&error) {
                    Some(why) => {
                        *cause.lock() = why;
                        pause = retry.pause(&error);
                    }
                    None => return Err(error),
                },
            }
        }
    };
    let (answered, db) = tokio::join!(answering, opening);
    answered.map_err(unheard)?;
    let Some(db) = db? else { return Ok(None) };
    retry.succeeded();
    Ok(Some((db, Some(TcpListener::from_std(listener).map_err(unheard)?))))
}

/// Why the store is not there, if that may pass by itself.
fn passing(error: &StoreError) -> Option<Cause> {
    error.outage().filter(|cause| cause.passes())
}

pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(|error| DaemonError::Listen { address, error })
}
