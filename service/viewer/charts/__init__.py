"""The viewer's charts, as SVG."""
