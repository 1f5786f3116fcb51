//! The fields of the kinds that are read, after the published `generated.proto` files. Pure.
use super::{Field, Kind};

const OWNER: &[Field] = &[
    (1, "kind", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "controller", Kind::Bool),
    (7, "blockOwnerDeletion", Kind::Bool),
];
const META: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "generation", Kind::Int),
    (8, "creationTimestamp", Kind::Time),
    (9, "deletionTimestamp", Kind::Time),
    (10, "deletionGracePeriodSeconds", Kind::GivenInt),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (13, "ownerReferences", Kind::Messages(OWNER)),
    (14, "finalizers", Kind::Texts),
    (17, "managedFields", Kind::Messages(MANAGED)),
];
const MANAGED: &[Field] = &[
    (1, "manager", Kind::Text),
    (2, "operation", Kind::Text),
    (3, "apiVersion", Kind::Text),
    (4, "time", Kind::Time),
    (6, "fieldsType", Kind::Text),
    (7, "fieldsV1", Kind::Json),
    (8, "subresource", Kind::Text),
];
const OBJECT_REFERENCE: &[Field] = &[
    (1, "kind", Kind::Text),
    (2, "namespace", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "fieldPath", Kind::Text),
];
const LOCAL_REFERENCE: &[Field] = &[(1, "name", Kind::Text)];
const BACKEND_PORT: &[Field] = &[(1, "name", Kind::Text), (2, "number", Kind::Int)];
const BACKEND_SERVICE: &[Field] = &[(1, "name", Kind::Text), (2, "port", Kind::Message(BACKEND_PORT))];
const TYPED_REFERENCE: &[Field] = &[(1, "apiGroup", Kind::Text), (2, "kind", Kind::Text), (3, "name", Kind::Text)];
const INGRESS_BACKEND: &[Field] =
    &[(3, "resource", Kind::Message(TYPED_REFERENCE)), (4, "service", Kind::Message(BACKEND_SERVICE))];
const INGRESS_PATH: &[Field] =
    &[(1, "path", Kind::Text), (2, "backend", Kind::Message(INGRESS_BACKEND)), (3, "pathType", Kind::Text)];
const INGRESS_HTTP: &[Field] = &[(1, "paths", Kind::Messages(INGRESS_PATH))];
const INGRESS_RULE_VALUE: &[Field] = &[(1, "http", Kind::Message(INGRESS_HTTP))];
const INGRESS_RULE: &[Field] = &[(1, "host", Kind::Text), (2, "", Kind::Inline(INGRESS_RULE_VALUE))];
const INGRESS_TLS: &[Field] = &[(1, "hosts", Kind::Texts), (2, "secretName", Kind::Text)];
const INGRESS_SPEC: &[Field] = &[
    (1, "defaultBackend", Kind::Message(INGRESS_BACKEND)),
    (2, "tls", Kind::Messages(INGRESS_TLS)),
    (3, "rules", Kind::Messages(INGRESS_RULE)),
    (4, "ingressClassName", Kind::Text),
];
const SERVICE_PORT: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "protocol", Kind::Text),
    (3, "port", Kind::Int),
    (4, "targetPort", Kind::IntOrText),
    (5, "nodePort", Kind::Int),
    (6, "appProtocol", Kind::Text),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Kind::Messages(SERVICE_PORT)),
    (2, "selector", Kind::TextMap),
    (3, "clusterIP", Kind::Text),
    (4, "type", Kind::Text),
    (5, "externalIPs", Kind::Texts),
    (7, "sessionAffinity", Kind::Text),
    (8, "loadBalancerIP", Kind::Text),
    (9, "loadBalancerSourceRanges", Kind::Texts),
    (10, "externalName", Kind::Text),
    (11, "externalTrafficPolicy", Kind::Text),
    (12, "healthCheckNodePort", Kind::Int),
    (13, "publishNotReadyAddresses", Kind::Flag),
    (
        14,
        "sessionAffinityConfig",
        Kind::Message(&[(1, "clientIP", Kind::Message(&[(1, "timeoutSeconds", Kind::GivenInt)]))]),
    ),
    (17, "ipFamilyPolicy", Kind::Text),
    (18, "clusterIPs", Kind::Texts),
    (19, "ipFamilies", Kind::Texts),
    (20, "allocateLoadBalancerNodePorts", Kind::Bool),
    (21, "loadBalancerClass", Kind::Text),
    (22, "internalTrafficPolicy", Kind::Text),
    (23, "trafficDistribution", Kind::Text),
];
const BALANCER: &[Field] =
    &[(1, "ingress", Kind::Messages(&[(1, "ip", Kind::Text), (2, "hostname", Kind::Text), (3, "ipMode", Kind::Text)]))];
const BALANCED: &[Field] = &[(1, "loadBalancer", Kind::Message(BALANCER))];
const LEASE_SPEC: &[Field] = &[
    (1, "holderIdentity", Kind::Text),
    (2, "leaseDurationSeconds", Kind::GivenInt),
    (3, "acquireTime", Kind::MicroTime),
    (4, "renewTime", Kind::MicroTime),
    (5, "leaseTransitions", Kind::GivenInt),
    (6, "strategy", Kind::Text),
    (7, "preferredHolder", Kind::Text),
];
const EVENT_SOURCE: &[Field] = &[(1, "component", Kind::Text), (2, "host", Kind::Text)];
const EVENT_SERIES: &[Field] = &[(1, "count", Kind::Int), (2, "lastObservedTime", Kind::MicroTime)];
const CORE_EVENT: &[Field] = &[
    (1, "metadata", Kind::Message(META)),
    (2, "involvedObject", Kind::Message(OBJECT_REFERENCE)),
    (3, "reason", Kind::Text),
    (4, "message", Kind::Text),
    (5, "source", Kind::Message(EVENT_SOURCE)),
    (6, "firstTimestamp", Kind::Time),
    (7, "lastTimestamp", Kind::Time),
    (8, "count", Kind::Int),
    (9, "type", Kind::Text),
    (10, "eventTime", Kind::MicroTime),
    (11, "series", Kind::Message(EVENT_SERIES)),
    (12, "action", Kind::Text),
    (13, "related", Kind::Message(OBJECT_REFERENCE)),
    (14, "reportingComponent", Kind::Text),
    (15, "reportingInstance", Kind::Text),
];
const EVENT: &[Field] = &[
    (1, "metadata", Kind::Message(META)),
    (2, "eventTime", Kind::MicroTime),
    (3, "series", Kind::Message(EVENT_SERIES)),
    (4, "reportingController", Kind::Text),
    (5, "reportingInstance", Kind::Text),
    (6, "action", Kind::Text),
    (7, "reason", Kind::Text),
    (8, "regarding", Kind::Message(OBJECT_REFERENCE)),
    (9, "related", Kind::Message(OBJECT_REFERENCE)),
    (10, "note", Kind::Text),
    (11, "type", Kind::Text),
    (12, "deprecatedSource", Kind::Message(EVENT_SOURCE)),
    (13, "deprecatedFirstTimestamp", Kind::Time),
    (14, "deprecatedLastTimestamp", Kind::Time),
    (15, "deprecatedCount", Kind::Int),
];
const CLASS_PARAMETERS: &[Field] = &[
    (1, "apiGroup", Kind::Text),
    (2, "kind", Kind::Text),
    (3, "name", Kind::Text),
    (4, "scope", Kind::Text),
    (5, "namespace", Kind::Text),
];
const CLASS_SPEC: &[Field] = &[(1, "controller", Kind::Text), (2, "parameters", Kind::Message(CLASS_PARAMETERS))];
const TOKEN_SPEC: &[Field] = &[(1, "token", Kind::Text), (2, "audiences", Kind::Texts)];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    (1, "namespace", Kind::Text),
    (2, "verb", Kind::Text),
    (3, "group", Kind::Text),
    (4, "version", Kind::Text),
    (5, "resource", Kind::Text),
    (6, "subresource", Kind::Text),
    (7, "name", Kind::Text),
];
const OTHER_ATTRIBUTES: &[Field] = &[(1, "path", Kind::Text), (2, "verb", Kind::Text)];
const ACCESS_SPEC: &[Field] = &[
    (1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES)),
    (2, "nonResourceAttributes", Kind::Message(OTHER_ATTRIBUTES)),
];
const OTHERS_ACCESS_SPEC: &[Field] = &[
    (1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES)),
    (2, "nonResourceAttributes", Kind::Message(OTHER_ATTRIBUTES)),
    (3, "user", Kind::Text),
    (4, "groups", Kind::Texts),
    (6, "uid", Kind::Text),
];
const PRECONDITIONS: &[Field] = &[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)];

/// The fields of a kind. Events have other ones in their two versions.
pub fn of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Event" if api_version == "v1" => CORE_EVENT,
        "Event" => EVENT,
        "Lease" => &[(1, "metadata", Kind::Message(META)), (2, "spec", Kind::Message(LEASE_SPEC))],
        "IngressClass" => &[(1, "metadata", Kind::Message(META)), (2, "spec", Kind::Message(CLASS_SPEC))],
        "TokenReview" => &[(1, "metadata", Kind::Message(META)), (2, "spec", Kind::Message(TOKEN_SPEC))],
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            &[(1, "metadata", Kind::Message(META)), (2, "spec", Kind::Message(OTHERS_ACCESS_SPEC))]
        }
        "Secret" => &[
            (1, "metadata", Kind::Message(META)),
            (2, "data", Kind::BytesMap),
            (3, "type", Kind::Text),
            (4, "stringData", Kind::TextMap),
            (5, "immutable", Kind::Bool),
        ],
        "ConfigMap" => &[
            (1, "metadata", Kind::Message(META)),
            (2, "data", Kind::TextMap),
            (3, "binaryData", Kind::BytesMap),
            (4, "immutable", Kind::Bool),
        ],
        "Namespace" => &[
            (1, "metadata", Kind::Message(META)),
            (2, "spec", Kind::Message(&[(1, "finalizers", Kind::Texts)])),
            (3, "status", Kind::Message(&[(1, "phase", Kind::Text)])),
        ],
        "ServiceAccount" => &[
            (1, "metadata", Kind::Message(META)),
            (2, "secrets", Kind::Messages(OBJECT_REFERENCE)),
            (3, "imagePullSecrets", Kind::Messages(LOCAL_REFERENCE)),
            (4, "automountServiceAccountToken", Kind::Bool),
        ],
        "Service" => &[
            (1, "metadata", Kind::Message(META)),
            (2, "spec", Kind::Message(SERVICE_SPEC)),
            (3, "status", Kind::Message(BALANCED)),
        ],
        "Ingress" => &[
            (1, "metadata", Kind::Message(META)),
            (2, "spec", Kind::Message(INGRESS_SPEC)),
            (3, "status", Kind::Message(BALANCED)),
        ],
        "DeleteOptions" => &[
            (1, "gracePeriodSeconds", Kind::GivenInt),
            (2, "preconditions", Kind::Message(PRECONDITIONS)),
            (3, "orphanDependents", Kind::Bool),
            (4, "propagationPolicy", Kind::Text),
            (5, "dryRun", Kind::Texts),
        ],
        "SelfSubjectReview" => &[(1, "metadata", Kind::Message(META))],
        "SelfSubjectAccessReview" => &[(1, "metadata", Kind::Message(META)), (2, "spec", Kind::Message(ACCESS_SPEC))],
        "SelfSubjectRulesReview" => {
            &[(1, "metadata", Kind::Message(META)), (2, "spec", Kind::Message(&[(1, "namespace", Kind::Text)]))]
        }
        _ => return None,
    })
}
