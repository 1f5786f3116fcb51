//! Query parameters that cannot be understood are refused, not passed over.
use serde_json::{Value, json};

use super::harness::on_each_server;

#[tokio::test]
async fn numbers_must_be_numbers() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        for (query, shown) in [
            ("limit=x", "x"),
            ("limit=", ""),
            ("timeoutSeconds=1s", "1s"),
            ("watch=1&limit=x", "x"),
            ("watch=1&timeoutSeconds=x", "x"),
        ] {
            let (reason, message) = server.get(&format!("{maps}?{query}")).await.refused(400);
            assert_eq!(message, format!("strconv.ParseInt: parsing \"{shown}\": invalid syntax"), "{query}");
            assert_eq!(reason, "BadRequest");
        }
        let (_, message) = server.delete(&format!("{maps}/a?gracePeriodSeconds=x"), &Value::Null).await.refused(400);
        assert_eq!(message, "strconv.ParseInt: parsing \"x\": invalid syntax");
        // A number below zero limits nothing; unknown parameters say nothing.
        server.get(&format!("{maps}?limit=-1")).await.expect(200);
        server.get(&format!("{maps}?nope=1&pretty=x")).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn whatever_is_not_zero_or_false_is_true() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        for value in ["true", "1", "yes", "", "TRUE"] {
            let path = format!("{maps}?watch={value}&timeoutSeconds=1&fieldSelector=metadata.name%3Da");
            let answer = server.get(&path).await;
            assert_eq!(answer.expect(200)["type"], "ADDED", "{value}");
        }
        for value in ["false", "0", "False"] {
            assert_eq!(
                server.get(&format!("{maps}?watch={value}")).await.expect(200)["kind"],
                "ConfigMapList",
                "{value}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_is_all_or_nothing() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let map = json!({"metadata": {"name": "a"}});
        let words = |kind: &str, given: &str| {
            format!("{kind}Options.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: {given}: supported values: \"All\"")
        };
        for (query, given) in [("dryRun=x", "[\"x\"]"), ("dryRun=", "[\"\"]"), ("dryRun=All&dryRun=x", "[\"All\",\"x\"]")] {
            let answer = server.post(&format!("{maps}?{query}"), &map).await;
            let cause = json!({
                "reason": "FieldValueNotSupported", "field": "dryRun",
                "message": format!("Unsupported value: {given}: supported values: \"All\""),
            });
            let details = json!({"group": "meta.k8s.io", "kind": "CreateOptions", "causes": [cause]});
            assert_eq!(answer.body["details"], details);
            assert_eq!(answer.refused(422), ("Invalid".to_owned(), words("Create", given)));
        }
        server.post(&maps, &map).await.expect(201);
        let path = format!("{maps}/a?dryRun=x");
        assert_eq!(server.put(&path, &map).await.refused(422).1, words("Update", "[\"x\"]"));
        assert_eq!(server.merge(&path, &json!({})).await.refused(422).1, words("Patch", "[\"x\"]"));
        assert_eq!(server.delete(&path, &Value::Null).await.refused(422).1, words("Delete", "[\"x\"]"));
        let body = json!({"dryRun": ["Nope"]});
        assert_eq!(server.delete(&format!("{maps}/a"), &body).await.refused(422).1, words("Delete", "[\"Nope\"]"));
        assert_eq!(server.delete(&format!("{maps}?dryRun=x"), &Value::Null).await.refused(422).1, words("Delete", "[\"x\"]"));
        server.get(&format!("{maps}/a")).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_field_managers_name_is_short_and_printable() {
    on_each_server(async |server| {
        let map = json!({"metadata": {"name": "a"}});
        let long = format!("{}?fieldManager={}", server.config_maps(), "m".repeat(129));
        assert_eq!(
            server.post(&long, &map).await.refused(422).1,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"
        );
        let odd = format!("{}?fieldManager=a%01b", server.config_maps());
        assert_eq!(
            server.post(&odd, &map).await.refused(422).1,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\x01b\": invalid character U+0001 (at position 1)"
        );
        server.post(&format!("{}?fieldManager={}", server.config_maps(), "m".repeat(128)), &map).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn field_validation_knows_three_ways() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let words = |kind: &str| {
            let known = "\"\", \"Ignore\", \"Strict\", \"Warn\"";
            format!("{kind}Options.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: {known}")
        };
        let map = json!({"metadata": {"name": "a"}});
        assert_eq!(server.post(&format!("{maps}?fieldValidation=x"), &map).await.refused(422).1, words("Create"));
        server.post(&format!("{maps}?fieldValidation="), &map).await.expect(201);
        let path = format!("{maps}/a?fieldValidation=x");
        assert_eq!(server.put(&path, &map).await.refused(422).1, words("Update"));
        assert_eq!(server.merge(&path, &json!({})).await.refused(422).1, words("Patch"));
        // Several mistakes are told together.
        let (_, message) = server.post(&format!("{maps}?dryRun=x&fieldValidation=x"), &map).await.refused(422);
        assert!(message.contains(" is invalid: [dryRun: ") && message.contains(", fieldValidation: "), "{message}");
    })
    .await;
}

#[tokio::test]
async fn force_is_for_apply_only() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let answer = server.merge(&format!("{maps}/a?force=true"), &json!({})).await;
        let words =
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
        assert_eq!(answer.refused(422), ("Invalid".to_owned(), words.to_owned()));
        // Replacing takes no notice of it.
        server.put(&format!("{maps}/a?force=true"), &json!({"metadata": {"name": "a"}})).await.expect(200);
        let answer = server.call("PATCH", &format!("{maps}/a"), "application/apply-patch+yaml", &json!({})).await;
        let words =
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        assert_eq!(answer.refused(422).1, words);
    })
    .await;
}

#[tokio::test]
async fn a_deletion_says_plainly_what_becomes_of_dependents() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server.post(&maps, &json!({"metadata": {"name": "a"}})).await.expect(201);
        let path = format!("{maps}/a");
        let words = "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Nope\": \
            supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
        assert_eq!(server.delete(&path, &json!({"propagationPolicy": "Nope"})).await.refused(422).1, words);
        assert_eq!(server.delete(&format!("{path}?propagationPolicy=Nope"), &Value::Null).await.refused(422).1, words);
        let both = json!({"orphanDependents": true, "propagationPolicy": "Orphan"});
        assert_eq!(
            server.delete(&path, &both).await.refused(422).1,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": \
             orphanDependents and deletionPropagation cannot be both set"
        );
        let (reason, message) = server.delete(&path, &json!({"kind": "Nope", "apiVersion": "v1"})).await.refused(400);
        assert_eq!(reason, "BadRequest");
        assert!(message.starts_with("no kind \"Nope\" is registered for version \"v1\""), "{message}");
        // Fields that are not known are passed over; the kind need not be said.
        server.delete(&path, &json!({"nope": 1})).await.expect(200);
    })
    .await;
}
