"""COCO's evaluation by hotcoco under the names of pycocotools."""
from collections.abc import Iterable

import numpy as np

TABLES = ('precision', 'recall', 'scores')


class FastEval:
    """`pycocotools.cocoeval.COCOeval` computed by hotcoco: faster, with bitwise equal results.

    `truth` and `results` are COCO objects of pycocotools, which do not change. Ids may be of any type that can be
    sorted, because hotcoco gets numbers from 1 in their place: so an annotation with the id 0, which pycocotools never
    matches, counts. `params`, `stats` and `eval` have pycocotools' names and shapes.
    """

    def __init__(self, truth, results, iou_type: str):
        import hotcoco
        from pycocotools.cocoeval import Params
        self.params = Params(iouType=iou_type)
        self._images, self._categories = numbered(truth.imgs), numbered(truth.cats)
        self.params.imgIds, self.params.catIds = [*self._images], [*self._categories]
        self._eval = hotcoco.COCOeval(*(hotcoco.COCO(self._plain(coco.dataset, iou_type == 'segm'))
                                        for coco in (truth, results)), iou_type)

    def _plain(self, content: dict, masks: bool) -> dict:
        """Return what evaluation needs of a COCO file, under the new ids; hotcoco refuses the types of others' keys."""
        annotations = content.get('annotations') or []
        found = [dict(id=number, image_id=self._images[entry['image_id']], bbox=entry['bbox'], area=entry['area'],
                      category_id=self._categories[entry['category_id']], iscrowd=int(entry.get('iscrowd') or 0))
                 for number, entry in enumerate(annotations, 1)]
        for key in ['score'] + ['segmentation'] * masks:
            for kept, entry in zip(found, annotations, strict=True):
                if (value := entry.get(key)) is not None:
                    kept[key] = value
        images = [dict(id=self._images[image['id']], file_name=str(image.get('file_name') or image['id']),
                       width=int(image['width']), height=int(image['height'])) for image in content['images']]
        names = {category['id']: str(category['name']) for category in content['categories']}
        categories = [dict(id=number, name=names[key]) for key, number in self._categories.items()]
        return dict(images=images, categories=categories, annotations=found)

    def __getattr__(self, name: str):
        if name == '_eval':  # not yet
            raise AttributeError(name)
        return getattr(self._eval, name)

    def evaluate(self) -> None:
        """Match results and truth by `params`."""
        self.params.iouThrs = np.atleast_1d(self.params.iouThrs)
        for name in ('iouThrs', 'recThrs', 'maxDets', 'areaRng', 'areaRngLbl', 'useCats'):
            setattr(self._eval.params, name, getattr(self.params, name))
        self._eval.params.imgIds, self._eval.params.catIds = self.numbers()
        self._eval.evaluate()

    def numbers(self) -> tuple[list[int], list[int]]:
        """Return hotcoco's numbers of the images and of the categories that `params` names."""
        # As pycocotools sorts them: the order decides between equal scores.
        return (sorted(self._images[key] for key in set(self.params.imgIds)),
                sorted(self._categories[key] for key in set(self.params.catIds)))

    def summarize(self) -> None:
        """Print the 12 numbers by pycocotools: hotcoco's mAP counts the last of `maxDets`, where this counts 100."""
        from pycocotools.cocoeval import COCOeval
        self.eval = in_class_order(self._eval.eval, self.params)
        COCOeval.summarize(self)


def numbered(ids: Iterable) -> dict:
    """Return a number from 1 for each id, in the order in which pycocotools sorts them."""
    return {key: number for number, key in enumerate(sorted(ids, key=lambda key: (isinstance(key, str), key)), 1)}


def in_class_order(tables: dict, params) -> dict:
    """Return an evaluator's tables with their classes, sorted by id, in the order of `params.catIds`."""
    ids = list(getattr(params, 'asked', params.catIds))
    if not params.useCats or ids == sorted(ids):
        return tables
    place = {key: number - 1 for key, number in numbered(ids).items()}
    axis = dict(precision=2, recall=1, scores=2)
    return tables | {name: tables[name].take([place[key] for key in ids], axis[name]) for name in TABLES}
