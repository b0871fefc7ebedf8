//! Loading a Community database: its service is stopped by whoever calls, so the command is all there is.

use crate::component::stream::ExecLoad;
use crate::component::{ComponentError, LoadStream};
use crate::provider::exec::CommandSpec;
use crate::provider::secret::Masker;

pub(super) async fn load(
    component: &str,
    spec: &CommandSpec,
    masker: &Masker,
) -> Result<Box<dyn LoadStream>, ComponentError> {
    Ok(Box::new(ExecLoad::start(component, spec, masker).await?))
}
