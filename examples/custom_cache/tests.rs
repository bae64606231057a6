//! The driver passes the contract.

use mika::base::secret::Secret;
use mika::cache::contract;

use super::driver::open;

#[tokio::test]
async fn it_fulfils_the_contract() {
    let open = async || open(&Secret::new(String::new())).unwrap().unwrap();
    contract::run_core(open).await;
}
