"""What plugins and this node say to each other: `.proto` files, and what scripts/generate-stubs makes of them."""
