//! The two kinds of processes: a storage node and a gateway, composed as the binary does it, without TLS and listeners for users.

use std::sync::Arc;

use anyhow::Context;
use futures::future::pending;
use gateway::{Gateway, GatewayConfig, GatewayParts};
use http::Response;
use http::header::{DATE, HeaderValue};
use placement::PlacementClient;
use placement_proto::api::MapWatch;
use placement_rpc::{Channels, Lineage, Security, serve};
use placement_types::{Env, Profile, TaskHandle, ZoneName};
use storage_node::Limits;
use tonic::service::Routes;
use tower::util::MapResponseLayer;

use crate::machine::{DATA_DIR, Machine};
use crate::net::{Directory, LatePlacement, Peers, placement_connect};
use crate::roles::storage::{Candidate, Storage, StorageParts};

const PORT: u16 = 9100;

/// What every process of a cluster is told.
#[derive(Clone)]
pub struct ClusterPlan {
    /// `host:port` of every storage node that founds it.
    pub addresses: Vec<String>,
    pub profile: Profile,
    pub limits: Limits,
}

impl ClusterPlan {
    pub fn new(nodes: usize, profile: Profile, limits: Limits) -> Self {
        let addresses = (0..nodes).map(|node| format!("{}:{PORT}", node_name(node))).collect();
        Self { addresses, profile, limits }
    }
}

pub fn node_name(node: usize) -> String {
    format!("node{node}")
}

/// What a node does in a cluster's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Founds,
    /// It joins once it is switched on.
    Joins,
}

/// Runs a storage node until its machine dies.
///
/// # Errors
/// When the node does not start: after a crash, every node must.
pub async fn run_node(machine: Arc<Machine>, plan: ClusterPlan, part: Part) -> turmoil::Result {
    machine.wait_for_power().await;
    match start_node(&machine, plan, part).await {
        Ok(_running) => {
            machine.set_serving();
            pending().await
        }
        // It ends, and is started again when the machine is.
        Err(_) if machine.may_fail() => pending().await,
        Err(error) => Err(format!("{} does not start: {error:#}", machine.name).into()),
    }
}

async fn start_node(machine: &Arc<Machine>, plan: ClusterPlan, part: Part) -> anyhow::Result<(Storage, TaskHandle)> {
    machine.prepare_start();
    let env = machine.boot();
    let listener = env.net.listen(&format!("0.0.0.0:{PORT}")).await.context("cannot listen")?;
    let parts = StorageParts {
        env: env.clone(),
        data: vec![DATA_DIR.to_owned()],
        address: format!("{}:{PORT}", machine.name),
        zone: ZoneName::parse(&machine.name).context("a zone for each node")?,
        profile: Some(plan.profile),
        expect: if part == Part::Founds { Some(u32::try_from(plan.addresses.len())?) } else { None },
        peer_addresses: plan.addresses,
        moved: false,
        kv: machine.stores(),
        limits: plan.limits,
    };
    let candidate = Candidate::open(parts).await?;
    let peers = Arc::new(Peers::new(env.clone(), Channels::new(env.clone(), Security::Plaintext, Lineage::default())));
    let seeker = candidate.with_peers(Some(peers))?;
    let mut routes = Routes::builder();
    routes
        .add_service(placement_proto::serve::service(seeker.meeting.clone(), seeker.placement.clone()))
        .add_service(storage_node_proto::serve::service(env.clone(), seeker.served.clone()));
    // Real time must not reach the simulation: hyper dates answers that have no date, and the date changes their length.
    let dated = routes.routes().into_axum_router().layer(MapResponseLayer::new(with_fixed_date));
    let (serve_env, routes) = (env.clone(), Routes::from(dated));
    let port = env.spawn("internal-port", async move {
        if let Err(error) = serve(serve_env, listener, Security::Plaintext, Lineage::default(), routes, pending()).await {
            panic!("the internal port closed: {error}");
        }
    });
    let storage = seeker.start().await?;
    Ok((storage, port))
}

fn with_fixed_date<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(DATE, HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"));
    response
}

/// A running gateway; `follower` keeps its map fresh.
pub struct RunningGateway {
    pub env: Env,
    pub gateway: Arc<Gateway>,
    pub maps: MapWatch,
    pub follower: TaskHandle,
    pub client: PlacementClient,
    pub nodes: Arc<Directory>,
}

/// Starts a gateway on a machine and returns once there is a cluster.
pub async fn start_gateway(machine: &Machine, plan: &ClusterPlan) -> RunningGateway {
    let env = machine.boot();
    let peers = Arc::new(Peers::new(env.clone(), Channels::new(env.clone(), Security::Plaintext, Lineage::default())));
    let connect = placement_connect(String::new(), LatePlacement::new(Arc::default()), Some(peers.clone()));
    let client = PlacementClient::new(env.clone(), connect, plan.addresses.clone(), None);
    let (maps, follower) = (client.maps(), client.follow());
    let nodes = Arc::new(Directory::new(maps.clone(), Some(peers)));
    let config = GatewayConfig::new("us-east-1", "root", None);
    let placement = Arc::new(client.clone());
    let parts = GatewayParts { env: env.clone(), placement, maps: maps.clone(), nodes: nodes.clone(), config };
    let gateway = Gateway::new(parts);
    maps.clone().wait_for(Option::is_some).await.expect("the follower keeps the sender");
    RunningGateway { env, gateway, maps, follower, client, nodes }
}
