"""An ONNX file to a torch module: read, checked, simplified, and run with torch operators."""
