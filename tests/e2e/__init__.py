"""What people do with minik8s, done for real: an agent on the Docker Engine and this kernel, real kubectl before it."""
