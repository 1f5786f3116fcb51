//! What the cluster lacks: it is named, and holds nothing up that can be done without it.
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::backends::ingress::Target;
use serde_json::json;

use super::{Cluster, given, ingress, route, target};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_lacks_is_named() {
    let cluster = Cluster::start(ingress()).await;
    let no_gateways = given(cluster.backend_to(target(route())));
    let refused = no_gateways.want("reset.acme.example").await.expect_err("no such kind");
    assert_eq!(refused.reason, "KindMissing", "{refused}");
    assert!(refused.message.contains("the cluster has no HTTPRoute (gateway.networking.k8s.io/v1)"), "{refused}");
    let nowhere = Target { namespace: "nowhere".to_owned(), ..target(ingress()) };
    let refused = given(cluster.backend_to(nowhere)).want("reset.acme.example").await.expect_err("no namespace");
    assert_eq!(refused.reason, "NamespaceMissing", "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_kind_is_missing_nothing_holds_a_deletion_up() {
    // given a cluster without the Gateway API
    let cluster = Cluster::start(ingress()).await;
    let scene = given(cluster.backend_to(target(route())));
    // when a portal goes while another one wants its route, in one batch
    let (made, gone) = tokio::join!(scene.want("reset.globex.example"), scene.unwant("reset.acme.example"));
    // then nothing of the first one can be there, and only making is refused
    assert_eq!(gone.expect("gone").changes, Vec::<String>::new());
    assert_eq!(made.expect_err("no such kind").reason, "KindMissing");
    // the same in the whole: a declared portal whose class needs the missing kind can be deleted again
    let world = World::start().await;
    let classes: Api<portalkeeper::api::PortalClass> = Api::all(world.client.clone());
    let through =
        json!({"spec": {"proxy": {"caddy": null, "ingress": {"namespace": "default", "gateway": {"name": "public"}}}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_condition("acme", "RouteProgrammed", "False", "KindMissing").await;
    let problems = world.plan().await.remove(0).problems.join("\n");
    assert!(problems.contains("the cluster has no HTTPRoute"), "{problems}");
    world.delete("acme").await;
}
