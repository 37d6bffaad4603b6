//! The gateway: everything the operations share. It keeps no state that a restart could lose.

use std::sync::Arc;

use gateway_s3::{Owner, S3Error};
use placement_map::bucket::Bucket;
use placement_proto::api::{MapWatch, PlacementApi};
use placement_types::{Env, NodeId};
use storage_node_proto::api::Nodes;
use storage_node_proto::command::{Command, Outcome, Shelf};
use tokio::sync::oneshot;

use crate::buckets::Buckets;
use crate::coordinators::Coordinators;
use crate::error::Failure;
use crate::meta_router::{MetaRouter, RouteError};
use crate::object_reader::ObjectReader;
use crate::staged_data::StagedData;
use crate::stripe_writer::StripeWriter;
use crate::system_group::SystemGroup;

/// What the operator chooses.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Recorded in new buckets.
    pub region: String,
    /// The account that owns every bucket.
    pub owner: Owner,
    /// The storage node in this process, if there is one.
    pub local_node: Option<NodeId>,
}

impl GatewayConfig {
    /// A config of `region` whose owner is derived from the operator's access key, so that all gateways agree on it.
    pub fn new(region: impl Into<String>, root_access_key: &str, local_node: Option<NodeId>) -> Self {
        // Canonical user ids have 64 hexadecimal digits.
        let id = blake3::derive_key("dozo canonical user id of an access key v1", root_access_key.as_bytes());
        let owner = Owner { id: hex::encode(id), display_name: root_access_key.to_owned() };
        Self { region: region.into(), owner, local_node }
    }
}

/// What a gateway is made of.
pub struct GatewayParts {
    pub env: Env,
    pub placement: Arc<dyn PlacementApi>,
    pub maps: MapWatch,
    pub nodes: Arc<dyn Nodes>,
    pub config: GatewayConfig,
}

/// The S3 operations of a cluster, as [`gateway_s3::S3Api`].
pub struct Gateway {
    pub(crate) env: Env,
    pub(crate) config: GatewayConfig,
    pub(crate) maps: MapWatch,
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) system: SystemGroup,
    pub(crate) buckets: Buckets,
    pub(crate) router: Arc<MetaRouter>,
    pub(crate) writer: StripeWriter,
    pub(crate) reader: ObjectReader,
}

impl Gateway {
    pub fn new(parts: GatewayParts) -> Arc<Self> {
        let GatewayParts { env, placement, maps, nodes, config } = parts;
        let system = SystemGroup::new(env.clone(), placement);
        let router = Arc::new(MetaRouter::new(env.clone(), Arc::clone(&nodes), maps.clone()));
        let coordinators = Coordinators::new(env.clone(), Arc::clone(&nodes), maps.clone(), config.local_node);
        Arc::new(Self {
            buckets: Buckets::new(env.clone(), system.clone()),
            writer: StripeWriter::new(coordinators.clone()),
            reader: ObjectReader::new(coordinators, Arc::clone(&router)),
            env,
            config,
            maps,
            nodes,
            system,
            router,
        })
    }

    /// Sends a command to its group in a task of its own, so that a client that goes away after this point cannot stop it
    /// half-way (G1), and settles what becomes of the data it commits.
    pub(crate) async fn commit(&self, shelf: Shelf, command: Command, staged: Option<StagedData>) -> Result<Outcome, RouteError> {
        let (sender, receiver) = oneshot::channel();
        let router = Arc::clone(&self.router);
        let task = self.env.spawn("commit", async move {
            let verdict = router.mutate(shelf, command).await;
            if let Some(staged) = staged {
                settle(staged, &verdict);
            }
            let _ = sender.send(verdict.map(|mutated| mutated.outcome));
        });
        task.detach();
        receiver.await.unwrap_or_else(|_| Err(RouteError::Unknown { why: "the process is shutting down".into() }))
    }

    /// The owner of a bucket, for replies.
    pub(crate) fn owner_of(&self, bucket: &Bucket) -> Owner {
        let display_name =
            if bucket.owner == self.config.owner.id { self.config.owner.display_name.clone() } else { String::new() };
        Owner { id: bucket.owner.clone(), display_name }
    }

    /// Counts and times an operation.
    pub(crate) async fn measured<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, S3Error> {
        let started = self.env.monotonic();
        let verdict = work.await.map_err(S3Error::from);
        let status = verdict.as_ref().map_or_else(|error| error.code.status().as_u16(), |_| 200);
        crate::metrics::operation_ended(operation, status, self.env.monotonic().saturating_sub(started));
        verdict
    }
}

/// Keeps what a version or part may refer to; deletes what certainly nothing will. As long as an earlier try of the
/// transaction may still happen somewhere, its chunks are left to the scrub, which fences the transaction first (I5).
fn settle(staged: StagedData, verdict: &Result<crate::meta_router::Mutated, RouteError>) {
    let refused_for_good = match verdict {
        Ok(mutated) => !mutated.doubted && !matches!(mutated.outcome, Outcome::Written { .. } | Outcome::PartWritten),
        Err(RouteError::Unavailable { .. }) => true,
        Err(RouteError::Unknown { .. } | RouteError::BadMessage { .. }) => false,
    };
    if refused_for_good {
        drop(staged);
    } else {
        staged.keep();
    }
}
