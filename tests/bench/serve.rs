//! HTTP servers of the benches' own: nodes, and what stands before them.

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Serves on a free port until the handle is dropped; gives the URL.
pub async fn serve(router: Router) -> anyhow::Result<(String, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let task = tokio::spawn(async move {
        // It ends with the measurement.
        let _ = axum::serve(listener, router).await;
    });
    Ok((url, AbortOnDropHandle::new(task)))
}
