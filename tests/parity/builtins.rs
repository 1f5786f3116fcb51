//! Built-in kinds: what the server fills in, and what it refuses.
use serde_json::{Value, json};

use super::{Server, on_each_server};

/// The message with which an object is refused.
async fn refused(server: &Server, path: &str, body: Value) -> String {
    server.post(path, &body).await.refused(422).1
}

#[tokio::test]
async fn a_service_gets_an_address_and_its_usual_settings() {
    on_each_server(async |server| {
        let services = server.path("api/v1", "services");
        let made = server
            .post(&services, &json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}))
            .await
            .expect(201);
        let address = made["spec"]["clusterIP"].as_str().unwrap();
        assert!(address.parse::<std::net::IpAddr>().is_ok(), "{address}");
        let expected = json!({
            "clusterIP": address, "clusterIPs": [address], "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None", "type": "ClusterIP",
        });
        assert_eq!(made["spec"], expected);
        assert_eq!(made["status"], json!({"loadBalancer": {}}));
        // a replacement that says nothing of the address keeps it
        let body = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 81}]}});
        let after = server.put(&format!("{services}/s"), &body).await.expect(200);
        assert_eq!(
            (&after["spec"]["clusterIP"], &after["spec"]["ports"][0]["targetPort"]),
            (&json!(address), &json!(81))
        );
        let (_, message) =
            server.merge(&format!("{services}/s"), &json!({"spec": {"clusterIP": "10.0.0.1"}})).await.refused(422);
        assert_eq!(
            message,
            "Service \"s\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.0.0.1\"]: may not change once set"
        );
        // a deleted service is answered whole
        let deleted = server.delete(&format!("{services}/s"), &Value::Null).await.expect(200);
        assert_eq!((&deleted["kind"], &deleted["spec"]["type"]), (&json!("Service"), &json!("ClusterIP")));
    })
    .await;
}

#[tokio::test]
async fn services_of_other_types_get_other_settings() {
    on_each_server(async |server| {
        let services = server.path("api/v1", "services");
        let make = async |name: &str, spec: Value| {
            server.post(&services, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201)["spec"].clone()
        };
        let headless = make("h", json!({"clusterIP": "None", "selector": {"a": "b"}})).await;
        assert_eq!((&headless["clusterIPs"], &headless["ports"]), (&json!(["None"]), &Value::Null));
        let named = make("e", json!({"type": "ExternalName", "externalName": "example.com"})).await;
        assert_eq!(named, json!({"type": "ExternalName", "externalName": "example.com", "sessionAffinity": "None"}));
        let node = make("n", json!({"type": "NodePort", "ports": [{"port": 80}]})).await;
        assert!((30000..32768).contains(&node["ports"][0]["nodePort"].as_i64().unwrap()), "{node}");
        assert_eq!(node["externalTrafficPolicy"], "Cluster");
        let sticky = make("c", json!({"sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": 0}]})).await;
        assert_eq!(sticky["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
        assert_eq!(sticky["ports"][0]["targetPort"], 80);
    })
    .await;
}

#[tokio::test]
async fn a_service_needs_ports_that_can_be_told_apart() {
    on_each_server(async |server| {
        let services = server.path("api/v1", "services");
        let spec = async |spec: Value| {
            let words = refused(server, &services, json!({"metadata": {"name": "s"}, "spec": spec})).await;
            words.strip_prefix("Service \"s\" is invalid: ").unwrap().to_owned()
        };
        assert_eq!(spec(json!({})).await, "spec.ports: Required value");
        assert_eq!(spec(json!({"type": "ExternalName"})).await, "spec.externalName: Required value");
        assert_eq!(
            spec(json!({"ports": [{"port": 80}, {"port": 81}]})).await,
            "[spec.ports[0].name: Required value, spec.ports[1].name: Required value]"
        );
        assert_eq!(
            spec(json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]})).await,
            "spec.ports[1].name: Duplicate value: \"a\""
        );
        assert_eq!(
            spec(json!({"ports": [{"port": 0}]})).await,
            "[spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, \
             spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]"
        );
        assert_eq!(
            spec(json!({"ports": [{"port": 80, "protocol": "X"}]})).await,
            "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\""
        );
        assert_eq!(
            spec(json!({"type": "Bogus", "ports": [{"port": 80}]})).await,
            "spec.type: Unsupported value: \"Bogus\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""
        );
    })
    .await;
}

#[tokio::test]
async fn a_service_is_a_dns_label() {
    on_each_server(async |server| {
        let services = server.path("api/v1", "services");
        let body = json!({"metadata": {"name": "a.b"}, "spec": {"ports": [{"port": 80}]}});
        let words = refused(server, &services, body).await;
        assert_eq!(words, "Service \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": must not contain dots");
    })
    .await;
}

#[tokio::test]
async fn a_secrets_texts_are_encoded_and_its_type_stays() {
    on_each_server(async |server| {
        let secrets = server.path("api/v1", "secrets");
        let body = json!({"metadata": {"name": "x"}, "data": {"a": "Yg=="}, "stringData": {"a": "c", "b": "d"}});
        let made = server.post(&secrets, &body).await.expect(201);
        assert_eq!(made["data"], json!({"a": "Yw==", "b": "ZA=="}));
        assert_eq!((&made["type"], &made["stringData"]), (&json!("Opaque"), &Value::Null));
        let path = format!("{secrets}/x");
        let (_, message) = server.merge(&path, &json!({"type": "other"})).await.refused(422);
        assert_eq!(message, "Secret \"x\" is invalid: type: Invalid value: \"other\": field is immutable");
        // a replacement without a type is of the usual one
        let after = server.put(&path, &json!({"metadata": {"name": "x"}, "data": {"q": "eA=="}})).await.expect(200);
        assert_eq!((&after["type"], &after["data"]), (&json!("Opaque"), &json!({"q": "eA=="})));
        let after = server.merge(&path, &json!({"stringData": {"b": "c"}})).await.expect(200);
        assert_eq!(after["data"], json!({"q": "eA==", "b": "Yw=="}));
    })
    .await;
}

#[tokio::test]
async fn secrets_of_known_types_hold_what_belongs_to_them() {
    on_each_server(async |server| {
        let secrets = server.path("api/v1", "secrets");
        let typed = async |kind: &str, texts: Value| {
            let body = json!({"metadata": {"name": "x"}, "type": kind, "stringData": texts});
            let words = refused(server, &secrets, body).await;
            words.strip_prefix("Secret \"x\" is invalid: ").unwrap().to_owned()
        };
        let none = || json!({});
        assert_eq!(
            typed("kubernetes.io/tls", none()).await,
            "[data[tls.crt]: Required value, data[tls.key]: Required value]"
        );
        assert_eq!(
            typed("kubernetes.io/basic-auth", none()).await,
            "[data[username]: Required value, data[password]: Required value]"
        );
        assert_eq!(typed("kubernetes.io/ssh-auth", none()).await, "data[ssh-privatekey]: Required value");
        assert_eq!(typed("kubernetes.io/dockerconfigjson", none()).await, "data[.dockerconfigjson]: Required value");
        assert_eq!(
            typed("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "{"})).await,
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input"
        );
        assert_eq!(
            typed("kubernetes.io/service-account-token", none()).await,
            "metadata.annotations[kubernetes.io/service-account.name]: Required value"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_immutable_stays_so() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server
            .post(&maps, &json!({"metadata": {"name": "i"}, "immutable": true, "data": {"a": "b"}}))
            .await
            .expect(201);
        let path = format!("{maps}/i");
        let words = "Forbidden: field is immutable when `immutable` is set";
        let (_, message) = server.merge(&path, &json!({"data": {"a": "c"}})).await.refused(422);
        assert_eq!(message, format!("ConfigMap \"i\" is invalid: data: {words}"));
        let (_, message) = server.merge(&path, &json!({"immutable": null})).await.refused(422);
        assert_eq!(message, format!("ConfigMap \"i\" is invalid: immutable: {words}"));
        server.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn keys_of_data_are_file_names() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let words = refused(server, &maps, json!({"metadata": {"name": "x"}, "data": {"..": "d"}})).await;
        assert_eq!(words, "ConfigMap \"x\" is invalid: data[..]: Invalid value: \"..\": must not be '..'");
        let words = refused(server, &maps, json!({"metadata": {"name": "x"}, "data": {"a b": "d"}})).await;
        assert!(words.contains("data[a b]: Invalid value: \"a b\": a valid config key must consist of"), "{words}");
        let twice = json!({"metadata": {"name": "x"}, "data": {"k": "c"}, "binaryData": {"k": "eA=="}});
        assert_eq!(
            refused(server, &maps, twice).await,
            "ConfigMap \"x\" is invalid: data[k]: Invalid value: \"k\": duplicate of key present in binaryData"
        );
    })
    .await;
}

#[tokio::test]
async fn an_ingress_names_its_paths_and_backends() {
    on_each_server(async |server| {
        let ingresses = server.path("apis/networking.k8s.io/v1", "ingresses");
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let spec = async |spec: Value| {
            let words = refused(server, &ingresses, json!({"metadata": {"name": "i"}, "spec": spec})).await;
            words.strip_prefix("Ingress.networking.k8s.io \"i\" is invalid: ").unwrap().to_owned()
        };
        let path = async |path: Value| spec(json!({"rules": [{"host": "a.example", "http": {"paths": [path]}}]})).await;
        let at = "spec.rules[0].http.paths[0]";
        assert_eq!(spec(json!({})).await, "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified");
        assert_eq!(spec(json!({"rules": [{"http": {"paths": []}}]})).await, "spec.rules[0].http.paths: Required value");
        assert_eq!(
            path(json!({"path": "/", "backend": backend})).await,
            format!("{at}.pathType: Required value: pathType must be specified")
        );
        assert_eq!(
            path(json!({"path": "/", "pathType": "Bogus", "backend": backend})).await,
            format!("{at}.pathType: Unsupported value: \"Bogus\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"")
        );
        assert_eq!(
            path(json!({"path": "x", "pathType": "Prefix", "backend": backend})).await,
            format!("{at}.path: Invalid value: \"x\": must be an absolute path")
        );
        assert_eq!(
            path(json!({"path": "/a//b", "pathType": "Exact", "backend": backend})).await,
            format!("{at}.path: Invalid value: \"/a//b\": must not contain '//'")
        );
        assert_eq!(
            path(json!({"path": "/", "pathType": "Prefix", "backend": {}})).await,
            format!("{at}.backend: Invalid value: \"\": resource or service backend is required")
        );
        assert_eq!(
            path(json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s"}}})).await,
            format!("{at}.backend: Required value: port name or number is required")
        );
    })
    .await;
}

#[tokio::test]
async fn an_ingress_serves_hosts_not_addresses() {
    on_each_server(async |server| {
        let ingresses = server.path("apis/networking.k8s.io/v1", "ingresses");
        let paths = json!([{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]);
        let body = |name: &str, host: &str| {
            json!({"metadata": {"name": name}, "spec": {"ingressClassName": "x", "rules": [{"host": host, "http": {"paths": paths}}]}})
        };
        let words = refused(server, &ingresses, body("i", "1.2.3.4")).await;
        assert!(words.ends_with("spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"), "{words}");
        let words = refused(server, &ingresses, body("i", "*a.example")).await;
        assert!(words.contains("a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain"), "{words}");
        let words = refused(server, &ingresses, body("i", "A.Example")).await;
        assert!(words.contains("spec.rules[0].host: Invalid value: \"A.Example\": a lowercase RFC 1123 subdomain"), "{words}");
        let made = server.post(&ingresses, &body("wild", "*.a.example")).await.expect(201);
        assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({"loadBalancer": {}})));
    })
    .await;
}

#[tokio::test]
async fn an_ingress_status_is_written_with_addresses() {
    on_each_server(async |server| {
        let ingresses = server.path("apis/networking.k8s.io/v1", "ingresses");
        let spec =
            json!({"ingressClassName": "x", "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}});
        server.post(&ingresses, &json!({"metadata": {"name": "i"}, "spec": spec})).await.expect(201);
        let address =
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}, "metadata": {"labels": {"a": "b"}}});
        let after = server.merge(&format!("{ingresses}/i/status"), &address).await.expect(200);
        assert_eq!(after["status"], address["status"]);
        // labels go with a built-in kind's status
        assert_eq!((&after["metadata"]["labels"]["a"], &after["metadata"]["generation"]), (&json!("b"), &json!(1)));
        let wrong = json!({"status": {"loadBalancer": {"ingress": [{"hostname": "1.2.3.4"}]}}});
        let (_, message) = server.merge(&format!("{ingresses}/i/status"), &wrong).await.refused(422);
        assert!(message.ends_with("Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn an_ingress_class_names_its_controller_for_good() {
    on_each_server(async |server| {
        let classes = "/apis/networking.k8s.io/v1/ingressclasses";
        let body = |spec: Value| json!({"metadata": {"name": server.namespace}, "spec": spec});
        let full = format!("IngressClass.networking.k8s.io \"{}\" is invalid: ", server.namespace);
        assert_eq!(refused(server, classes, body(json!({}))).await, format!("{full}spec.controller: Required value"));
        assert_eq!(
            refused(server, classes, body(json!({"controller": "x"}))).await,
            format!(
                "{full}spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")"
            )
        );
        let parameters = json!({"kind": "K", "name": "n"});
        let made =
            server.post(classes, &body(json!({"controller": "a.b/c", "parameters": parameters}))).await.expect(201);
        let path = format!("{classes}/{}", server.namespace);
        let changed = server.merge(&path, &json!({"spec": {"controller": "a.b/d"}})).await;
        let deleted = server.delete(&path, &Value::Null).await;
        assert_eq!(made["spec"]["parameters"]["scope"], "Cluster");
        assert_eq!(
            changed.refused(422).1,
            format!("{full}spec.controller: Invalid value: \"a.b/d\": field is immutable")
        );
        assert_eq!(deleted.expect(200)["details"]["kind"], "ingressclasses");
    })
    .await;
}

#[tokio::test]
async fn a_lease_has_a_duration_and_is_made_by_its_replacement() {
    on_each_server(async |server| {
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        let body = json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": -1, "leaseTransitions": -1}});
        assert_eq!(
            refused(server, &leases, body).await,
            "Lease.coordination.k8s.io \"l\" is invalid: [spec.leaseDurationSeconds: Invalid value: -1: must be greater than 0, \
             spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0]"
        );
        let made = server.put(&format!("{leases}/new"), &json!({"metadata": {"name": "new"}, "spec": {"holderIdentity": "a"}})).await;
        assert_eq!(made.expect(201)["spec"], json!({"holderIdentity": "a"}));
        assert_eq!(server.post(&leases, &json!({"metadata": {"name": "bare"}})).await.expect(201)["spec"], json!({}));
    })
    .await;
}

#[tokio::test]
async fn a_service_account_is_answered_when_it_goes() {
    on_each_server(async |server| {
        let accounts = server.path("api/v1", "serviceaccounts");
        let body = json!({"metadata": {"name": "sa"}, "imagePullSecrets": [{"name": "y"}], "automountServiceAccountToken": false});
        let made = server.post(&accounts, &body).await.expect(201);
        assert_eq!((&made["imagePullSecrets"], &made["automountServiceAccountToken"]), (&json!([{"name": "y"}]), &json!(false)));
        let deleted = server.delete(&format!("{accounts}/sa"), &Value::Null).await.expect(200);
        assert_eq!((&deleted["kind"], &deleted["metadata"]["name"]), (&json!("ServiceAccount"), &json!("sa")));
    })
    .await;
}
