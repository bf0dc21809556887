//! The operator's two files, the base and the job template: read anew each time, and where they
//! cannot be used, as they were when they could.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use crate::base::BaseError;
use crate::template::Template;
use crate::writer;

/// A configuration and what it was made of.
#[derive(Debug, Clone)]
pub struct Material {
    /// The configuration.
    pub config: Arc<[u8]>,
    /// Why it is not made of the files as they are.
    pub complaint: Option<String>,
    parts: Parts,
}

/// The bytes of both files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    base: Arc<[u8]>,
    template: Arc<[u8]>,
}

/// Where the files are, and what is known of them.
#[derive(Debug)]
pub struct Source {
    base: Option<PathBuf>,
    template: Option<PathBuf>,
    good: Option<Parts>,
    /// Parts that Prometheus has refused, and until when they are not tried.
    set_aside: Option<(Parts, Instant)>,
}

impl Source {
    /// A source that nothing is known of.
    #[must_use]
    pub fn new(base: Option<PathBuf>, template: Option<PathBuf>) -> Self {
        Self {
            base,
            template,
            good: None,
            set_aside: None,
        }
    }

    /// Makes a configuration by `make` of the files as they are, else as they were when they were
    /// good.
    ///
    /// # Errors
    ///
    /// In words, why neither can be used.
    pub async fn make(
        &self,
        make: impl Fn(&[u8], &Template) -> Result<Vec<u8>, BaseError>,
    ) -> Result<Material, String> {
        let build = |parts: Parts, complaint| {
            let template = Template::parse(&parts.template)
                .map_err(|error| format!("the job template cannot be used: {error}"))?;
            let config = make(&parts.base, &template)
                .map_err(|error| format!("the base cannot be used: {error}"))?;
            Ok(Material {
                config: config.into(),
                complaint,
                parts,
            })
        };
        let complaint = match self.read().await {
            Err(error) => error,
            Ok(parts) if self.is_set_aside(&parts) => {
                "the base or the job template is not used as it is now, for Prometheus refuses it"
                    .to_owned()
            }
            Ok(parts) => match build(parts, None) {
                Ok(material) => return Ok(material),
                Err(error) => error,
            },
        };
        match &self.good {
            None => Err(complaint),
            Some(good) => build(good.clone(), Some(complaint)),
        }
    }

    /// Prometheus has taken this.
    pub fn is_good(&mut self, material: &Material) {
        if self.good.as_ref() != Some(&material.parts) {
            self.good = Some(material.parts.clone());
        }
        if material.complaint.is_none() {
            self.set_aside = None;
        }
    }

    /// Prometheus has refused this. If other parts were good before, those are used until `until`.
    pub fn set_aside(&mut self, material: &Material, until: Instant) {
        if self
            .good
            .as_ref()
            .is_some_and(|good| *good != material.parts)
        {
            self.set_aside = Some((material.parts.clone(), until));
        }
    }

    fn is_set_aside(&self, parts: &Parts) -> bool {
        self.set_aside
            .as_ref()
            .is_some_and(|(aside, until)| aside == parts && Instant::now() < *until)
    }

    /// Beside the runtime's thread: a file system may take its time.
    async fn read(&self) -> Result<Parts, String> {
        let (base, template) = (self.base.clone(), self.template.clone());
        let reading = tokio::task::spawn_blocking(move || {
            Ok(Parts {
                base: read(base.as_deref())?,
                template: read(template.as_deref())?,
            })
        });
        reading.await.map_err(|error| error.to_string())?
    }
}

fn read(path: Option<&Path>) -> Result<Arc<[u8]>, String> {
    let Some(path) = path else {
        return Ok(Arc::default());
    };
    match writer::read(path) {
        Ok(Some(bytes)) => Ok(bytes.into()),
        Ok(None) => Err(format!(
            "cannot read {}: there is no such file",
            path.display()
        )),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base;
    use std::time::Duration;

    struct Bench {
        folder: tempfile::TempDir,
        source: Source,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let source = Source::new(
                Some(folder.path().join("base")),
                Some(folder.path().join("template")),
            );
            let bench = Self { folder, source };
            bench.write("base", "a: 1\n");
            bench.write("template", "");
            bench
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }

        async fn make(&self) -> Result<Material, String> {
            let made = self.source.make(|base, _| base::insert(base, &[]));
            made.await
        }
    }

    fn starts_with(material: &Material, text: &str) -> bool {
        material.config.starts_with(text.as_bytes())
    }

    #[tokio::test]
    async fn without_a_good_one_a_bad_file_is_an_error_in_words() {
        let bench = Bench::new();
        bench.write("base", "a: [");
        assert!(
            bench
                .make()
                .await
                .unwrap_err()
                .starts_with("the base cannot be used: it is not valid YAML")
        );
        bench.write("base", "");
        bench.write("template", "job_name: x");
        assert!(
            bench
                .make()
                .await
                .unwrap_err()
                .starts_with("the job template cannot be used: it sets job_name")
        );
        std::fs::remove_file(bench.folder.path().join("base")).unwrap();
        assert!(
            bench
                .make()
                .await
                .unwrap_err()
                .ends_with("base: there is no such file")
        );
    }

    #[tokio::test]
    async fn a_file_that_turns_bad_is_used_as_it_was() {
        let mut bench = Bench::new();
        let first = bench.make().await.unwrap();
        bench.source.is_good(&first);
        bench.write("base", "a: [");
        let second = bench.make().await.unwrap();
        assert!(starts_with(&second, "a: 1"));
        assert!(second.complaint.unwrap().contains("not valid YAML"));
        bench.write("base", "b: 2\n");
        let third = bench.make().await.unwrap();
        assert!(starts_with(&third, "b: 2") && third.complaint.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_base_is_set_aside_until_it_changes_or_its_time_is_up() {
        let mut bench = Bench::new();
        bench.source.is_good(&bench.make().await.unwrap());
        bench.write("base", "b: 2\n");
        let refused = bench.make().await.unwrap();
        let until = Instant::now() + Duration::from_secs(300);
        bench.source.set_aside(&refused, until);
        let instead = bench.make().await.unwrap();
        assert!(starts_with(&instead, "a: 1"));
        assert!(instead.complaint.is_some());
        bench.source.is_good(&instead);
        assert!(
            starts_with(&bench.make().await.unwrap(), "a: 1"),
            "still set aside"
        );
        bench.write("base", "c: 3\n");
        assert!(starts_with(&bench.make().await.unwrap(), "c: 3"));
        bench.write("base", "b: 2\n");
        tokio::time::advance(Duration::from_secs(301)).await;
        assert!(starts_with(&bench.make().await.unwrap(), "b: 2"));
    }

    #[tokio::test]
    async fn the_only_base_is_not_set_aside() {
        let mut bench = Bench::new();
        let only = bench.make().await.unwrap();
        bench
            .source
            .set_aside(&only, Instant::now() + Duration::from_secs(300));
        assert!(bench.make().await.unwrap().complaint.is_none());
    }
}
