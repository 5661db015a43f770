"""Segmentation of scans."""
