"""Labelled data sets as they lie on disk: PASCAL VOC, COCO, CamVid. Read by training and by evaluation; no torch."""
