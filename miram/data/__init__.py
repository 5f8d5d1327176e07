"""From the archive to splits: transfer, DICOM, the table of lesions, crops; without torch."""
