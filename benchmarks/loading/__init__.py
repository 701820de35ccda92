"""What benchmarks/load.py is made of: clients, servers, raw ONNX Runtime, and the page that its report becomes."""
