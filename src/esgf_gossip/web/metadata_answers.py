"""What the control socket is asked of metadata documents: to read them, and alone here to write them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from esgf_gossip.document_desk import MISSING, DocumentDesk, DocumentError, Written
from esgf_gossip.documents.names import DocumentName, DocumentNameError, parse_name
from esgf_gossip.web.control_answers import CommandError
from esgf_gossip.web.metadata_bodies import refused_body, summary_body, version_body
from esgf_gossip.web.metadata_pages import versions_body, whole_body
from esgf_gossip.web.questions import QuestionError

Answer = Callable[[Mapping[str, Any]], Any]


class MetadataAnswers:
    """Answers of one desk; ``by_command`` maps each command to what answers it."""

    def __init__(self, desk: DocumentDesk) -> None:
        self._desk = desk
        self.by_command: Final[Mapping[str, Answer]] = {
            name: _refusing(answer)
            for name, answer in {
                "documents": self._list,
                "documents-refused": lambda _fields: refused_body(desk.library.authors),
                "document": lambda fields: whole_body(desk, _name(fields)),
                "document-history": lambda fields: versions_body(desk, _name(fields), fields),
                "document-content": self._content,
                "document-put": self._put,
                "document-delete": self._delete,
            }.items()
        }

    def _list(self, _fields: Mapping[str, Any]) -> Any:
        library = self._desk.library
        found = ((name, library.get(name)) for name in library.names)
        return [summary_body(name, document) for name, document in found if document is not None]

    def _content(self, fields: Mapping[str, Any]) -> Any:
        name = _name(fields)
        version = self._desk.find(name, _text(fields, "version"))
        content = base64.b64encode(self._desk.body(version)).decode()
        return {**version_body(self._desk.document(name), version), "base64": content}

    def _put(self, fields: Mapping[str, Any]) -> Any:
        try:
            body = base64.b64decode(_text(fields, "base64"), validate=True)
        except (binascii.Error, ValueError):
            raise CommandError("base64 is no base64") from None
        return self._write(fields, body)

    def _delete(self, fields: Mapping[str, Any]) -> Any:
        return self._write(fields, None)

    def _write(self, fields: Mapping[str, Any], body: bytes | None) -> Any:
        merge = fields.get("merge", False)
        if type(merge) is not bool:
            raise CommandError("merge is true or false")
        written = self._desk.put(_name(fields), body, _text(fields, "if_match"), merge=merge)
        return _written(written)


def _written(written: Written) -> dict[str, Any]:
    said = version_body(written.document, written.version)
    return {**said, "changed": written.is_new, "conflict": written.document.is_conflict}


def _refusing(answer: Answer) -> Answer:
    def refusing(fields: Mapping[str, Any]) -> Any:
        try:
            return answer(fields)
        except DocumentError as error:
            raise CommandError(str(error), is_missing=error.status == MISSING) from None
        except (DocumentNameError, QuestionError) as error:
            raise CommandError(str(error)) from None

    return refusing


def _name(fields: Mapping[str, Any]) -> DocumentName:
    return parse_name(_text(fields, "document"))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if type(value) is not str:
        raise CommandError(f"{name} is a text")
    return value
