"""Every page that is served, one file per idea; a router each."""

from fastapi import APIRouter

from mpsearch.api.pages import files, job_changes, job_list, job_page, new_job, sign_in

PAGES: tuple[APIRouter, ...] = (
    job_list.router,
    new_job.router,
    job_page.router,
    job_changes.router,
    sign_in.router,
    files.router,
)
