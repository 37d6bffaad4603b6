//! Who may use whom.

use crate::Problem;

/// The layer of the services, which only the root binary and the test crates may use.
const SERVICE_LAYER: u64 = 3;
/// The layer of the root binary and the test crates.
const TOP_LAYER: u64 = 4;
/// The doubles in it are for the tests of every crate.
const ENV_CRATE: &str = "placement-env";
const S3S: &str = "s3s";
const S3S_OWNER: &str = "gateway-s3";

/// A crate of the workspace.
#[derive(Debug, Clone)]
pub struct Package {
    pub name: String,
    /// Its directory from the root; empty for the root package.
    pub path: String,
    /// `[package.metadata] layer`.
    pub layer: Option<u64>,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone)]
pub struct Dependency {
    pub name: String,
    pub is_dev: bool,
}

/// Layers are given, and nobody uses his own or a higher one. Tests may use their own layer, and the doubles of `Env`; so a crate
/// of tests may use another one, and cargo refuses circles among them.
pub fn check_layers(packages: &[Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in packages {
        let Some(layer) = package.layer else {
            problems.push(format!("{}/Cargo.toml: add `[package.metadata] layer = N` (see ARCHITECTURE.md)", package.path));
            continue;
        };
        let is_top = package.path.is_empty() || package.path.starts_with("tests/");
        if is_top != (layer == TOP_LAYER) {
            problems.push(format!("{}: layer {TOP_LAYER} is for the root binary and tests/, and for them only", package.name));
        }
        for dependency in &package.dependencies {
            let Some(used) = packages.iter().find(|other| other.name == dependency.name) else { continue };
            let Some(used_layer) = used.layer else { continue };
            let are_tests = package.path.starts_with("tests/") && used.path.starts_with("tests/");
            let allowed =
                used_layer < layer || are_tests || (dependency.is_dev && (used_layer == layer || used.name == ENV_CRATE));
            if !allowed {
                problems.push(format!(
                    "{} (layer {layer}) uses {} (layer {used_layer}): use lower layers only; move what is shared down, or meet \
                     through a proto crate",
                    package.name, used.name
                ));
            }
            if used_layer == SERVICE_LAYER && !is_top && used.name != package.name {
                problems.push(format!("{} uses the service {}: only the root binary and tests/ may", package.name, used.name));
            }
        }
    }
    problems
}

/// A crate's name is its path.
pub fn check_names(packages: &[Package]) -> Vec<Problem> {
    let expected = |package: &Package| if package.path.is_empty() { "dozo".into() } else { package.path.replace('/', "-") };
    packages
        .iter()
        .filter(|package| package.name != expected(package))
        .map(|package| format!("{}/Cargo.toml: the crate {} is to be called {}", package.path, package.name, expected(package)))
        .collect()
}

/// One crate knows the S3 library.
pub fn check_s3s(packages: &[Package]) -> Vec<Problem> {
    packages
        .iter()
        .filter(|package| package.name != S3S_OWNER && package.dependencies.iter().any(|used| used.name == S3S))
        .map(|package| format!("{} depends on {S3S}: only {S3S_OWNER} may; go through its types", package.name))
        .collect()
}

/// Features that nothing but speed would show the want of. `enabled` are those that the build resolves to.
pub fn check_features(package: &str, enabled: &[String], required: &[&str]) -> Vec<Problem> {
    required
        .iter()
        .filter(|feature| !enabled.iter().any(|name| name == *feature))
        .map(|feature| format!("{package} is built without {feature}: enable it in [workspace.dependencies]"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(path: &str, layer: impl Into<Option<u64>>, dependencies: &[(&str, bool)]) -> Package {
        let dependencies =
            dependencies.iter().map(|(name, is_dev)| Dependency { name: (*name).into(), is_dev: *is_dev }).collect();
        Package { name: path.replace('/', "-"), path: path.into(), layer: layer.into(), dependencies }
    }

    fn check(packages: &[Package], problems: usize) {
        let found = check_layers(packages);
        assert_eq!(found.len(), problems, "{found:?}");
    }

    #[test]
    fn lower_layers_may_be_used_and_others_may_not() {
        let low = package("placement/types", 0, &[]);
        let env = package("placement/env", 1, &[("placement-types", false), ("tokio", false)]);
        check(&[low.clone(), env.clone()], 0);
        check(&[package("placement/types", 0, &[("placement-env", false)]), env.clone()], 1);
        check(&[package("placement/types", 0, &[("placement-env", true)]), env.clone()], 0);
        check(&[env.clone(), package("placement/map", 1, &[("placement-env", false)])], 1);
        check(&[package("a/b", 1, &[]), package("placement/map", 1, &[("a-b", true)])], 0);
        check(&[package("a/b", 2, &[]), package("placement/map", 1, &[("a-b", true)])], 1);
    }

    #[test]
    fn a_crate_without_a_layer_or_in_the_wrong_top_is_found() {
        check(&[package("placement/types", None, &[])], 1);
        check(&[package("placement/types", 4, &[])], 1);
        check(&[package("tests/sim", 3, &[])], 1);
        check(&[package("tests/sim", 4, &[]), package("", 4, &[])], 0);
    }

    #[test]
    fn tests_may_use_tests_and_nobody_else_may() {
        let faults = package("tests/faults", 4, &[]);
        check(&[faults.clone(), package("tests/sim", 4, &[("tests-faults", false)])], 0);
        check(&[faults.clone(), package("", 4, &[("tests-faults", false)])], 1);
        check(&[faults, package("placement/map", 1, &[("tests-faults", false)])], 1);
    }

    #[test]
    fn services_do_not_use_services() {
        let service = package("placement", 3, &[]);
        check(&[service.clone(), package("tests/sim", 4, &[("placement", false)])], 0);
        check(&[service.clone(), package("gateway", 3, &[("placement", false)])], 2);
        check(&[service, package("gateway", 3, &[("placement", true)])], 1);
    }

    #[test]
    fn a_name_that_is_not_the_path_is_found() {
        let right = package("placement/types", 0, &[]);
        assert!(check_names(&[right.clone(), Package { name: "dozo".into(), ..package("", 4, &[]) }]).is_empty());
        assert_eq!(check_names(&[Package { name: "types".into(), ..right }]).len(), 1);
    }

    #[test]
    fn a_second_user_of_s3s_is_found() {
        assert!(check_s3s(&[package("gateway/s3", 2, &[("s3s", false)])]).is_empty());
        assert_eq!(check_s3s(&[package("gateway", 3, &[("s3s", true)])]).len(), 1);
    }

    #[test]
    fn a_missing_feature_is_found() {
        assert!(check_features("code", &["std".into(), "simd".into()], &["simd"]).is_empty());
        assert_eq!(check_features("code", &["std".into()], &["simd"]).len(), 1);
    }
}
