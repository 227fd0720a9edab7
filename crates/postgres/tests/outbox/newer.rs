//! The same with a newer PostgreSQL, where one is there.

use crate::support::newer_cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_postgresql_tells_the_same() {
    let Some(cluster) = newer_cluster() else { return };
    super::check_values(&cluster).await;
    let undisturbed = async |_: &tokio_postgres::Client| std::future::pending().await;
    super::oracle::check(&cluster, "ob_newer", 150, undisturbed).await;
}
