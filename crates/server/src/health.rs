//! Whether the server serves: one switch that the gRPC health service, `/readyz` and
//! `Server.Status` read. It is thrown once, when the server is told to stop, and never back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::grpc;

/// Whether the server serves. Cheap to clone; all clones are the same switch.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    draining: Arc<AtomicBool>,
}

impl Health {
    /// Everything serves.
    pub async fn serving() -> Self {
        let health =
            Self { reporter: HealthReporter::new(), draining: Arc::new(AtomicBool::new(false)) };
        health.tell(ServingStatus::Serving).await;
        health
    }

    /// The server is about to stop: load balancers and clients should go elsewhere.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.tell(ServingStatus::NotServing).await;
    }

    /// The server is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What the gRPC health service reads.
    pub(crate) fn reporter(&self) -> HealthReporter {
        self.reporter.clone()
    }

    async fn tell(&self, status: ServingStatus) {
        // The empty name is the server as a whole.
        for service in grpc::SERVICES.into_iter().chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
