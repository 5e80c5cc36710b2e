/// The methods of a consumer that a pattern hands on to the one inside as they are.
macro_rules! forward_the_rest {
    () => {
        fn name(&self) -> &str {
            self.inner.name()
        }

        async fn ready(&mut self) {
            self.inner.ready().await;
        }

        async fn advance(&mut self) -> Result<reflex_core::Progress, HandlerError> {
            self.inner.advance().await
        }

        async fn drain(&mut self) -> Result<reflex_core::Progress, HandlerError> {
            self.inner.drain().await
        }

        async fn stop(&mut self) -> Result<(), HandlerError> {
            self.inner.stop().await
        }

        fn monitoring(&self) -> reflex_core::Monitoring {
            self.inner.monitoring()
        }
    };
}
