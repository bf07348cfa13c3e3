"""PET: scanner → system → projector → acquisition → reconstruction.

In memory a sinogram is `(view, bin, plane)`, so that one index fetches a row of planes; on disk it is `(plane, view,
bin)`.
"""
