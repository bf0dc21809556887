//! The manifests in `deploy/kubernetes`: known to the API's types to the last field, and consistent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, PodSpec, Service, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use pushprox_daemon::cli::parse_from;
use pushprox_discovery::base;
use pushprox_discovery::cli::Args;
use pushprox_discovery::config::Config;
use pushprox_discovery::template::Template;
use pushprox_testkit::process;
use serde::Deserialize as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes")
}

/// Every object of the manifests, by `Kind/name`.
fn objects() -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap();
            if object["kind"] != "Kustomization" {
                let name = format!(
                    "{}/{}",
                    object["kind"].as_str().unwrap(),
                    object["metadata"]["name"].as_str().unwrap()
                );
                assert!(objects.insert(name, object).is_none());
            }
        }
    }
    objects
}

fn object<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(
        objects()
            .remove(name)
            .unwrap_or_else(|| panic!("there is no {name}")),
    )
    .unwrap()
}

/// Whether the type knows every field: one that it does not know is lost on the way back.
fn knows<T: DeserializeOwned + Serialize>(object: &Value) {
    let typed: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    assert_eq!(
        &serde_json::to_value(typed).unwrap(),
        object,
        "the API's type does not know a field"
    );
}

#[test]
fn every_field_is_one_of_the_api() {
    for (name, object) in objects() {
        match name.split('/').next().unwrap() {
            "ConfigMap" => knows::<ConfigMap>(&object),
            "Deployment" => knows::<Deployment>(&object),
            "Namespace" => knows::<Namespace>(&object),
            "Role" => knows::<Role>(&object),
            "RoleBinding" => knows::<RoleBinding>(&object),
            "Service" => knows::<Service>(&object),
            "ServiceAccount" => knows::<ServiceAccount>(&object),
            "StatefulSet" => knows::<StatefulSet>(&object),
            kind => panic!("{kind} is not checked"),
        }
        if object["kind"] != "Namespace" {
            assert_eq!(object["metadata"]["namespace"], "monitoring", "{name}");
        }
    }
}

#[test]
fn a_field_that_the_api_does_not_know_is_found() {
    let mut wrong = objects()["Service/pushprox-proxy"].clone();
    wrong["spec"]["ports"][0]["targetport"] = 1.into();
    assert!(std::panic::catch_unwind(|| knows::<Service>(&wrong)).is_err());
}

#[test]
fn the_kustomization_has_every_file_and_every_image() {
    let text = std::fs::read_to_string(folder().join("kustomization.yaml")).unwrap();
    let kustomization: Value = serde_yaml::from_str(&text).unwrap();
    let list = |key: &str, field: Option<&str>| {
        let items = kustomization[key].as_array().unwrap().iter();
        let mut names: Vec<_> = items
            .map(|item| {
                field
                    .map_or(item, |field| &item[field])
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        names.sort();
        names
    };
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "kustomization.yaml")
        .collect();
    files.sort();
    assert_eq!(list("resources", None), files);
    let mut images: Vec<_> = containers()
        .into_iter()
        .map(|container| container.image.unwrap())
        .filter_map(|image| {
            Some(
                image
                    .strip_prefix("pushprox/")?
                    .split_once(':')?
                    .0
                    .to_owned(),
            )
        })
        .map(|name| format!("pushprox/{name}"))
        .collect();
    images.sort();
    images.dedup();
    assert_eq!(list("images", Some("name")), images);
}

fn pods() -> Vec<PodSpec> {
    let of = |name: &str| object::<Deployment>(name).spec.template.spec.unwrap();
    let prometheus = object::<StatefulSet>("StatefulSet/prometheus")
        .spec
        .template
        .spec
        .unwrap();
    vec![
        of("Deployment/pushprox-proxy"),
        of("Deployment/example"),
        prometheus,
    ]
}

fn containers() -> Vec<Container> {
    let all = pods().into_iter().flat_map(|pod| {
        pod.init_containers
            .unwrap_or_default()
            .into_iter()
            .chain(pod.containers)
    });
    all.collect()
}

fn of_image(name: &str) -> Vec<Container> {
    let image = format!("pushprox/{name}:");
    let mut all = containers();
    all.retain(|container| container.image.as_ref().unwrap().starts_with(&image));
    assert!(!all.is_empty());
    all
}

#[test]
fn discovery_takes_its_flags_and_finds_the_proxies_service() {
    let proxies: Service = object("Service/pushprox-proxy");
    let labels = proxies.metadata.labels.unwrap();
    for container in of_image("discovery") {
        let config =
            Config::new(parse_from::<Args>("discovery", container.args.unwrap()).unwrap()).unwrap();
        let (name, value) = config.watch.selector.split_once('=').unwrap();
        assert_eq!(labels[name], value);
        assert_eq!(
            config.watch.namespace.as_deref(),
            proxies.metadata.namespace.as_deref()
        );
        // Every file lies in a volume of the container.
        let mounts = container.volume_mounts.unwrap();
        let files = [
            config.publish.files.target,
            config.publish.files.sd.folder,
            config.publish.source.unwrap(),
            config.publish.template.unwrap(),
        ];
        for file in files {
            assert!(
                mounts
                    .iter()
                    .any(|mount| file.starts_with(&mount.mount_path)),
                "{}",
                file.display()
            );
        }
    }
    assert!(
        proxies
            .spec
            .unwrap()
            .ports
            .unwrap()
            .iter()
            .any(|port| port.name.as_deref() == Some("http"))
    );
}

#[test]
fn discovery_may_do_what_it_does_and_no_more() {
    let role: Role = object("Role/pushprox-discovery");
    let rules = serde_json::to_value(role.rules.unwrap()).unwrap();
    let wanted = serde_json::json!([
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]);
    assert_eq!(rules, wanted);
    let binding: RoleBinding = object("RoleBinding/pushprox-discovery");
    let account = &binding.subjects.unwrap()[0].name;
    let prometheus: StatefulSet = object("StatefulSet/prometheus");
    assert_eq!(
        prometheus
            .spec
            .template
            .spec
            .unwrap()
            .service_account_name
            .as_ref(),
        Some(account)
    );
    assert!(objects().contains_key(&format!("ServiceAccount/{account}")));
}

#[test]
fn the_base_and_the_template_can_be_used() {
    let data = object::<ConfigMap>("ConfigMap/prometheus-base")
        .data
        .unwrap();
    Template::parse(data["job-template.yaml"].as_bytes()).unwrap();
    base::insert(data["prometheus.yaml.base"].as_bytes(), &[]).unwrap();
}

#[tokio::test]
async fn proxy_and_client_take_their_flags_and_meet() {
    for name in ["proxy", "client"] {
        for container in of_image(name) {
            let mut command = pushprox_testkit::pushprox::binary(name);
            // Unknown flags are found before the version is printed.
            let variables: Vec<_> = container
                .env
                .iter()
                .flatten()
                .map(|variable| format!("$({})", variable.name))
                .collect();
            for argument in container.args.unwrap() {
                // As the kubelet fills them in.
                command.arg(
                    variables
                        .iter()
                        .fold(argument, |argument, name| argument.replace(name, "value")),
                );
            }
            command.arg("--version");
            let outcome = process::run(command).await;
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        }
    }
    let service: Service = object("Service/pushprox-proxy");
    let port = service.spec.unwrap().ports.unwrap()[0].port;
    let url = format!("--proxy-url=http://pushprox-proxy.monitoring.svc:{port}/");
    assert!(of_image("client")[0].args.as_ref().unwrap().contains(&url));
}

#[test]
fn no_container_is_root_or_may_become_it() {
    for pod in pods() {
        assert_eq!(pod.security_context.unwrap().run_as_non_root, Some(true));
    }
    for container in containers() {
        let context = container
            .security_context
            .unwrap_or_else(|| panic!("{}", container.name));
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.read_only_root_filesystem, Some(true));
    }
}
