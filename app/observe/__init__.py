"""What an operator sees of the service: metrics, logs, traces. One `Exchange` a request, one middleware around all."""
