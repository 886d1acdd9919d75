"""A search's finds as a Simple Darwin Core table (https://dwc.tdwg.org/simple/), one occurrence for each image.

Taxa come from the metadata only: a query is no identification, and so is no name of a species.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime

from fieldscope.core.spreadsheet import cell
from fieldscope.service.exports.finds import Finds
from fieldscope.service.metadata.spans import Span
from fieldscope.service.workflows.ranked_image import RankedImage

TERMS = (
    *("occurrenceID", "basisOfRecord", "eventDate", "decimalLatitude", "decimalLongitude", "scientificName"),
    *("associatedMedia", "identificationVerificationStatus", "occurrenceRemarks", "dynamicProperties"),
)
"""Terms that every row has; other Darwin Core terms among the metadata's columns follow."""

_OWN = frozenset(
    {
        *("acceptedNameUsage", "behavior", "catalogNumber", "class", "collectionCode"),
        *("coordinateUncertaintyInMeters", "country", "countryCode", "county", "datasetName", "day"),
        *("endDayOfYear", "establishmentMeans", "eventID", "eventTime", "family", "genus", "geodeticDatum"),
        *("habitat", "higherClassification", "identificationRemarks", "identifiedBy", "individualCount"),
        *("infraspecificEpithet", "institutionCode", "kingdom", "license", "lifeStage", "locality"),
        *("locationID", "locationRemarks", "maximumElevationInMeters", "minimumElevationInMeters", "month"),
        *("municipality", "occurrenceStatus", "order", "organismID", "organismQuantity"),
        *("organismQuantityType", "parentEventID", "phylum", "recordedBy", "reproductiveCondition"),
        *("rightsHolder", "samplingProtocol", "scientificNameAuthorship", "sex", "specificEpithet"),
        *("startDayOfYear", "stateProvince", "taxonID", "taxonRank", "verbatimEventDate", "verbatimLocality"),
        *("vernacularName", "year"),
    }
)


def darwin_core(finds: Finds) -> str:
    """The finds as CSV. The dates and coordinates are those by which images are filtered; the reason is in
    `occurrenceRemarks`, P(match) and the query are in `dynamicProperties`, a person's mark is in
    `identificationVerificationStatus`."""
    own = [column for column in finds.columns if column in _OWN]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*TERMS, *own])
    for image in finds.images:
        row = _occurrence(image, finds)
        writer.writerow([cell(row[term]) for term in TERMS] + [cell(image.metadata.get(column)) for column in own])
    return text.getvalue()


def _occurrence(image: RankedImage, finds: Finds) -> dict[str, str]:
    records, cells = finds.ranking.records, image.metadata
    place = records.place(image.image_id)
    mark = finds.marks.get(image.image_id)
    return {
        "occurrenceID": cells.get("occurrenceID") or f"fieldscope:{finds.search_id}:{image.image_id}",
        "basisOfRecord": cells.get("basisOfRecord") or "MachineObservation",
        "eventDate": _date(records.time(image.image_id)),
        "decimalLatitude": str(place[0]) if place else "",
        "decimalLongitude": str(place[1]) if place else "",
        "scientificName": cells.get("scientificName", ""),
        "associatedMedia": cells.get("associatedMedia") or image.image_id,
        "identificationVerificationStatus": "verified by human" if mark else "unverified",
        "occurrenceRemarks": image.reason,
        "dynamicProperties": _properties({"query": finds.ranking.query, "p_match": image.p_match, "rank": image.rank}),
    }


def _date(span: Span | None) -> str:
    """A span as ISO 8601 writes it, as exact as it is known."""
    if span is None:
        return ""
    if span.first == span.last:
        return span.first.isoformat()
    day = datetime(span.last.year, span.last.month, span.last.day, 23, 59, 59)
    if span.last - span.first < datetime(1, 1, 1, 0, 1) - datetime(1, 1, 1):
        return span.first.isoformat(timespec="minutes")
    if span.first.date() == span.last.date():
        return span.first.date().isoformat()
    return f"{span.first.date().isoformat()}/{day.date().isoformat()}"


def _properties(values: Mapping[str, object]) -> str:
    import json

    return json.dumps({name: value for name, value in values.items() if value is not None}, ensure_ascii=False)
