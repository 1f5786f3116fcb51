//! Reviews: who am I, may I, may they.
use serde_json::{Value, json};

use super::harness::{Answer, Server, on_each_server};

const ACCESS: &str = "/apis/authorization.k8s.io/v1";
const WHO: &str = "/apis/authentication.k8s.io/v1";

async fn may(server: &Server, plural: &str, spec: &Value) -> Answer {
    server.post(&format!("{ACCESS}/{plural}"), &json!({"spec": spec})).await
}

/// The token in the server's kubeconfig.
fn token(server: &Server) -> String {
    let read = kube::config::Kubeconfig::read_from(&server.kubeconfig).unwrap();
    let user = read.auth_infos[0].auth_info.as_ref().unwrap();
    serde_json::to_value(user).unwrap()["token"].as_str().unwrap().to_owned()
}

async fn me(server: &Server) -> Value {
    let review = server.post(&format!("{WHO}/selfsubjectreviews"), &json!({})).await.expect(201);
    review["status"]["userInfo"].clone()
}

#[tokio::test]
async fn who_am_i_is_answered_with_user_and_groups() {
    on_each_server(async |server| {
        let given = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {"name": "x", "labels": {"a": "b"}},
        });
        for body in [json!({}), given] {
            let review = server.post(&format!("{WHO}/selfsubjectreviews"), &body).await.expect(201);
            assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("SelfSubjectReview"), &json!("authentication.k8s.io/v1")));
            let made = review["metadata"].as_object().unwrap();
            assert!(made.len() == 1 && made["creationTimestamp"].is_string(), "{review}");
            let user = &review["status"]["userInfo"];
            assert!(user["username"].as_str().is_some_and(|name| !name.is_empty()), "{user}");
            let groups = user["groups"].as_array().unwrap();
            assert!(groups.iter().any(|group| group == "system:authenticated"), "{user}");
        }
    })
    .await;
}

#[tokio::test]
async fn may_i_is_answered_for_resources_and_paths() {
    on_each_server(async |server| {
        let spec =
            json!({"resourceAttributes": {"verb": "delete", "resource": "secrets", "namespace": server.namespace}});
        let review = may(server, "selfsubjectaccessreviews", &spec).await.expect(201);
        assert_eq!(
            (&review["kind"], &review["apiVersion"]),
            (&json!("SelfSubjectAccessReview"), &json!("authorization.k8s.io/v1"))
        );
        assert_eq!((&review["spec"], &review["status"]["allowed"]), (&spec, &json!(true)));
        let spec = json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}});
        let review = may(server, "selfsubjectaccessreviews", &spec).await.expect(201);
        assert_eq!((&review["spec"], &review["status"]), (&spec, &json!({"allowed": true})));
    })
    .await;
}

#[tokio::test]
async fn one_question_is_asked_at_a_time() {
    on_each_server(async |server| {
        let invalid = ".authorization.k8s.io \"\" is invalid: ";
        let neither = "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let answer = may(server, "selfsubjectaccessreviews", &json!({})).await;
        let cause = json!({"reason": "FieldValueInvalid", "field": "spec.resourceAttributes",
            "message": neither.strip_prefix("spec.resourceAttributes: ").unwrap()});
        assert_eq!(answer.body["details"], json!({"group": "authorization.k8s.io", "causes": [cause]}));
        assert_eq!(answer.refused(422), ("Invalid".to_owned(), format!("{invalid}{neither}")));
        let both = json!({"resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"verb": "get", "path": "/x"}});
        let words = "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"get\"}: cannot be specified in combination with resourceAttributes";
        assert_eq!(may(server, "selfsubjectaccessreviews", &both).await.refused(422).1, format!("{invalid}{words}"));
        let nobody = "spec.user: Invalid value: \"\": at least one of user or group must be specified";
        let (_, message) = may(server, "subjectaccessreviews", &json!({})).await.refused(422);
        assert_eq!(message, format!("{invalid}[{neither}, {nobody}]"));
    })
    .await;
}

#[tokio::test]
async fn others_may_what_their_groups_may() {
    on_each_server(async |server| {
        let what = json!({"verb": "get", "resource": "secrets", "namespace": server.namespace});
        let allowed = async |user: Value| {
            let mut spec = user;
            spec["resourceAttributes"] = what.clone();
            let review = may(server, "subjectaccessreviews", &spec).await.expect(201);
            assert_eq!((&review["kind"], &review["spec"]), (&json!("SubjectAccessReview"), &spec));
            review["status"].clone()
        };
        assert_eq!(allowed(json!({"user": "parity-nobody"})).await, json!({"allowed": false}));
        let master = json!({"user": "parity-nobody", "groups": ["other", "system:masters"]});
        assert_eq!(allowed(master).await, json!({"allowed": true}));
        // and so do I
        let me = me(server).await;
        let myself = json!({"user": me["username"], "groups": me["groups"]});
        assert_eq!(allowed(myself).await, json!({"allowed": true}));
    })
    .await;
}

#[tokio::test]
async fn the_local_question_is_about_its_own_namespace() {
    on_each_server(async |server| {
        let path = server.path("apis/authorization.k8s.io/v1", "localsubjectaccessreviews");
        let ask = async |namespace: &str| {
            let what = json!({"verb": "get", "resource": "secrets", "namespace": namespace});
            let review = json!({"metadata": {"namespace": server.namespace}, "spec": {"user": "parity-nobody", "resourceAttributes": what}});
            server.post(&path, &review).await
        };
        let answer = ask(&server.namespace).await.expect(201);
        assert_eq!((&answer["kind"], &answer["status"]), (&json!("LocalSubjectAccessReview"), &json!({"allowed": false})));
        assert_eq!(answer["metadata"]["namespace"], json!(server.namespace));
        let words = "spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace";
        let (_, message) = ask("other").await.refused(422);
        assert_eq!(message, format!(".authorization.k8s.io \"\" is invalid: {words}"));
        // It has no place outside of namespaces, and the other questions have none inside.
        let (_, message) = server.post(&format!("{ACCESS}/localsubjectaccessreviews"), &json!({})).await.refused(404);
        assert_eq!(message, "the server could not find the requested resource");
        server.post(&server.path("apis/authorization.k8s.io/v1", "selfsubjectaccessreviews"), &json!({})).await.refused(404);
    })
    .await;
}

#[tokio::test]
async fn my_rules_are_listed_for_a_namespace() {
    on_each_server(async |server| {
        let (reason, message) = may(server, "selfsubjectrulesreviews", &json!({})).await.refused(400);
        assert_eq!((reason.as_str(), message.as_str()), ("BadRequest", "no namespace on request"));
        let review = may(server, "selfsubjectrulesreviews", &json!({"namespace": server.namespace})).await.expect(201);
        assert_eq!((&review["kind"], &review["spec"]), (&json!("SelfSubjectRulesReview"), &json!({})));
        let status = &review["status"];
        assert_eq!(status["incomplete"], false);
        let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        assert!(status["resourceRules"].as_array().unwrap().contains(&all), "{status}");
        let paths = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
        assert!(status["nonResourceRules"].as_array().unwrap().contains(&paths), "{status}");
    })
    .await;
}

#[tokio::test]
async fn a_token_is_reviewed_as_its_bearer_is_known() {
    on_each_server(async |server| {
        let review = async |spec: Value| server.post(&format!("{WHO}/tokenreviews"), &json!({"spec": spec})).await;
        let answer = review(json!({"token": token(server)})).await.expect(201);
        assert_eq!(
            (&answer["kind"], &answer["apiVersion"]),
            (&json!("TokenReview"), &json!("authentication.k8s.io/v1"))
        );
        let status = &answer["status"];
        assert_eq!((&status["authenticated"], &status["user"]), (&json!(true), &me(server).await));
        assert_eq!(status["audiences"].as_array().map(Vec::len), Some(1), "{status}");
        // for the audience that it is for, but for no other
        let same = json!({"token": token(server), "audiences": status["audiences"]});
        assert_eq!(review(same).await.expect(201)["status"]["authenticated"], true);
        let other = json!({"token": token(server), "audiences": ["parity-other"]});
        for spec in [json!({"token": "another"}), other] {
            let status = review(spec).await.expect(201)["status"].clone();
            assert_eq!(status, json!({"user": {}, "error": "invalid bearer token"}));
        }
        let (reason, message) = review(json!({})).await.refused(400);
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("BadRequest", "token is required for TokenReview in authentication")
        );
    })
    .await;
}

#[tokio::test]
async fn a_review_is_read_as_strictly_as_an_object() {
    on_each_server(async |server| {
        let path = format!("{ACCESS}/selfsubjectaccessreviews");
        let kind = "SelfSubjectAccessReview in version \"v1\" cannot be handled as a SelfSubjectAccessReview: ";
        let odd = json!({"spec": {"nope": 1, "resourceAttributes": {"verb": "get", "resource": "secrets"}}});
        let answer = server.post(&path, &odd).await;
        assert_eq!(answer.warnings(), ["299 - \"unknown field \\\"spec.nope\\\"\""]);
        assert_eq!(answer.expect(201)["spec"], json!({"resourceAttributes": {"verb": "get", "resource": "secrets"}}));
        let (_, message) = server.post(&format!("{path}?fieldValidation=Strict"), &odd).await.refused(400);
        assert_eq!(message, format!("{kind}strict decoding error: unknown field \"spec.nope\""));
        let answer = server.post(&format!("{path}?fieldValidation=Ignore"), &odd).await;
        assert!(answer.warnings().is_empty());
        let (_, message) = server.post(&path, &json!({"spec": {"resourceAttributes": {"verb": 7}}})).await.refused(400);
        assert!(message.starts_with(kind), "{message}");
        let (_, message) = server.post(&path, &json!({"kind": "Secret", "apiVersion": "v1"})).await.refused(400);
        let words = "Secret in version \"v1\" cannot be handled as a SelfSubjectAccessReview: \
            converting (v1.Secret) to (authorization.SelfSubjectAccessReview): unknown conversion";
        assert_eq!(message, words);
        server.call("POST", &path, "text/plain", &json!({})).await.refused(415);
        // Neither tables nor dry runs are known to a question.
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")];
        server.raw("POST", &path, &table, odd.to_string().into()).await.refused(406);
        server.post(&format!("{path}?dryRun=x"), &odd).await.refused(422);
        server.post(&format!("{path}?dryRun=All"), &odd).await.expect(201);
    })
    .await;
}
