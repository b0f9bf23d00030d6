"""Projects, members and briefs over JSON."""

from datetime import datetime

from django.db.models import QuerySet
from ninja import Field, Router, Schema, Status

from apps.accounts.http import SignedInRequest
from apps.common.api import PROBLEMS
from apps.projects import services
from apps.projects.models import Brief, Membership, Project
from apps.projects.policies import project_for

router = Router()


class ProjectIn(Schema):
    name: str
    description: str = ""


class ProjectOut(Schema):
    id: int
    name: str
    description: str
    created_at: datetime


class MemberIn(Schema):
    username: str
    role: str


class MemberOut(Schema):
    user_id: int
    username: str = Field(alias="user.username")
    role: str


class BriefIn(Schema):
    subject: str
    preset_id: int
    audience: str = ""
    angle: str = ""
    must_say: list[str] = []
    must_not_say: list[str] = []
    tone: str = ""
    num_words: int = 120

    def to_input(self) -> services.BriefInput:
        fields = self.dict() | {"must_say": tuple(self.must_say), "must_not_say": tuple(self.must_not_say)}
        return services.BriefInput(**fields)


class BriefOut(Schema):
    id: int
    project_id: int
    preset_id: int
    subject: str
    audience: str
    angle: str
    must_say: list[str]
    must_not_say: list[str]
    tone: str
    num_words: int
    created_at: datetime


@router.get("/projects", response={200: list[ProjectOut], **PROBLEMS})
def list_projects(request: SignedInRequest) -> QuerySet[Project]:
    return Project.objects.for_user(request.user)


@router.post("/projects", response={201: ProjectOut, **PROBLEMS})
def create_project(request: SignedInRequest, body: ProjectIn) -> Status[Project]:
    return Status(201, services.create_project(user=request.user, **body.dict()))


@router.get("/projects/{int:project_id}", response={200: ProjectOut, **PROBLEMS})
def get_project(request: SignedInRequest, project_id: int) -> Project:
    return project_for(request.user, project_id)


@router.get("/projects/{int:project_id}/members", response={200: list[MemberOut], **PROBLEMS})
def list_members(request: SignedInRequest, project_id: int) -> QuerySet[Membership]:
    return project_for(request.user, project_id).memberships.select_related("user").order_by("pk")


@router.post("/projects/{int:project_id}/members", response={200: MemberOut, **PROBLEMS})
def set_member(request: SignedInRequest, project_id: int, body: MemberIn) -> Membership:
    return services.set_member(user=request.user, project_id=project_id, **body.dict())


@router.delete("/projects/{int:project_id}/members/{int:member_id}", response={204: None, **PROBLEMS})
def remove_member(request: SignedInRequest, project_id: int, member_id: int) -> Status[None]:
    services.remove_member(user=request.user, project_id=project_id, member_id=member_id)
    return Status(204, None)


@router.get("/projects/{int:project_id}/briefs", response={200: list[BriefOut], **PROBLEMS})
def list_briefs(request: SignedInRequest, project_id: int) -> QuerySet[Brief]:
    return project_for(request.user, project_id).briefs.all()


@router.post("/projects/{int:project_id}/briefs", response={201: BriefOut, **PROBLEMS})
def create_brief(request: SignedInRequest, project_id: int, body: BriefIn) -> Status[Brief]:
    return Status(201, services.create_brief(user=request.user, project_id=project_id, brief=body.to_input()))


@router.get("/briefs/{int:brief_id}", response={200: BriefOut, **PROBLEMS})
def get_brief(request: SignedInRequest, brief_id: int) -> Brief:
    return services.brief_for(request.user, brief_id)


@router.put("/briefs/{int:brief_id}", response={200: BriefOut, **PROBLEMS})
def update_brief(request: SignedInRequest, brief_id: int, body: BriefIn) -> Brief:
    return services.update_brief(user=request.user, brief_id=brief_id, brief=body.to_input())
