"""The script's own `main()`, run without a GPU, data or network, and watched."""
