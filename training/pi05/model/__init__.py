"""The networks: SigLIP, the two Gemma towers, Pi0 and Pi0.5 over them, their loss and their sampler."""
