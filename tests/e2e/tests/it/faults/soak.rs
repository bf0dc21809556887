//! A short soak; `make soak` has a long one.

use std::time::{Duration, SystemTime};

use pushprox_soak::{Settings, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_under_load_lose_nothing_that_they_need_not() {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let account = run(Settings {
        duration: Duration::from_secs(15),
        seed: now.as_secs(),
    })
    .await;
    assert!(account.is_clean(), "{account}");
    println!("{account}");
}
