//! The HTTP endpoint that Prometheus scrapes.

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;
use crate::Shutdown;

/// Serves `/metrics` until shutdown. `refresh` is called before each answer, for gauges that somebody else knows.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    refresh: Arc<dyn Fn() + Send + Sync>,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let text = move || {
        refresh();
        let body = metrics.text();
        async move { ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], body) }
    };
    let app = axum::Router::new().route("/metrics", get(text)).route("/", get(|| async { "see /metrics\n" }));
    axum::serve(listener, app).with_graceful_shutdown(async move { shutdown.triggered().await }).await
}
