"""Where the values of settings come from: flags, a file, the environment, the folder's vqclip.toml, a preset."""
