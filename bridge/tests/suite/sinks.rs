//! Both sinks keep the contract, and each its own rules.

use bridge::sink_conformance::conforms;
use bridge::sinks::delta::DeltaSink;
use bridge::sinks::parquet::ParquetSink;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delta_conforms() {
    conforms(|path| Box::new(DeltaSink::new(path.to_owned()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_conforms() {
    conforms(|path| Box::new(ParquetSink::new(path.to_owned()))).await;
}
