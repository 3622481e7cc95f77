//! The admin API in this process: the very same service that a server has, without a socket.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, header},
};
use http_body_util::{BodyExt, Limited};
use orlop::{
    http::{
        App,
        server::{Asked, Service},
    },
    store::{OpenError, Store},
};
use tokio::runtime::Runtime;

use super::{ANSWER_BYTES_MAX, Transport};
use crate::{
    ConfigArguments, Failure,
    admin::call::{Answer, Call},
    engine, logging,
};

pub(super) struct Local {
    runtime: Runtime,
    app: Arc<App>,
    store: Arc<Store>,
}

impl Local {
    pub(super) fn open(arguments: &ConfigArguments) -> Result<Self, Failure> {
        let mut config = arguments.load(Vec::new())?.config;
        let host = engine::host(&config);
        // Nobody else needs the memory and the disk of a server.
        (config.http.verify_memory_bytes, config.http.verify_bytes_per_second) = (u64::MAX, u64::MAX);
        config.http.verify_opening = true;
        engine::must_exist(&config.data)?;
        // Opening can find that something is lost; that must not go unsaid.
        logging::start_quiet(&config);
        let store = engine::open_store(&config).map_err(explain)?;
        let runtime = engine::runtime(&config)?;
        let app = engine::open_app(&store, &config, host, runtime.handle())?;
        Ok(Self { runtime, app, store })
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(call.method()).uri(call.target()).header(header::HOST, "localhost");
        let body = call.body();
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Body::from(body.unwrap_or_default()))?;
        let response = Arc::clone(&self.app).answer(request, Asked::default()).await;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
        Ok(Answer { status, body: body.to_bytes().to_vec() })
    }
}

/// A server that has the store can be asked instead.
fn explain(error: Failure) -> Failure {
    match error.downcast_ref::<OpenError>() {
        Some(OpenError::InUse(directory)) => format!(
            "{directory} is in use by another orlop process: ask that one with --server URL (without --data), or stop it"
        )
        .into(),
        _ => error,
    }
}

impl Transport for Local {
    fn send(&self, call: &Call) -> Result<Answer, Failure> {
        self.runtime.block_on(self.exchange(call))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let Self { runtime, app, store } = *self;
        runtime.block_on(app.close());
        drop(app);
        // What still holds the store lives in tasks, which end with the runtime.
        drop(runtime);
        engine::close_store(store)
    }
}
